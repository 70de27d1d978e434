"""What the command that placed a run sees of it: the figures on the bus, the live table, the addresses for others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.cluster.addresses import connected
from common.cluster.backlog import Backlog
from common.config import save
from common.instance import instance_of
from common.messages import Stats
from common.meter import Meter
from common.news import NewsReader, NewsWriter
from common.run import Table
from common.settings import Config

if TYPE_CHECKING:
    from common.cluster.engine import Engine


class View:
    """Follows a run on the cluster wherever its bus goes.

    Args:
        config: of the run.
        config_file: where ``status``, ``snapshot`` and the others look for its addresses.
        table: show the live table.
    """

    def __init__(self, config: Config, config_file: Path, *, table: bool) -> None:
        self._config = config
        self._config_file = config_file
        self._wanted = table
        self._addresses: dict[str, str] | None = None
        self._reader: NewsReader | None = None
        self._writer: NewsWriter | None = None
        self._table: Table | None = None
        self._backlog = Backlog()
        self._meter = Meter()
        self._sender = instance_of("cluster")

    def turn(self, engine: Engine) -> None:
        """Take in the news, let the pools follow them, and publish how it stands."""
        if self._addresses != engine.addresses:
            self._follow(dict(engine.addresses))
        assert self._reader is not None and self._writer is not None
        now = time.monotonic()
        for _, message in self._reader.read():
            if isinstance(message, Stats) and self._backlog.note(message, now):
                engine.scale(self._backlog, now)
        if self._meter.due():
            figures = self._meter.figures()
            stats = {
                "from": self._sender,
                "stage": "cluster",
                "state": "running",
                "detail": engine.figures(),
                **figures,
            }
            self._writer.publish(Stats.model_validate(stats), "cluster")

    def close(self) -> None:
        """Close the sockets and take the table away. Closing twice is allowed."""
        for opened in (self._reader, self._writer):
            if opened is not None:
                opened.close()
        if self._table is not None:
            self._table.__exit__()
        self._reader = self._writer = self._table = None

    def _follow(self, addresses: dict[str, str]) -> None:
        """The channels are elsewhere now."""
        self.close()
        self._addresses = addresses
        config = connected(self._config, addresses)
        save(config, self._config_file)
        self._reader = NewsReader(config, ("stats.",))
        self._writer = NewsWriter(config, self._sender)
        self._table = Table(config, wanted=self._wanted)
        self._table.__enter__()
