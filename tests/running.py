"""A whole Mien, running: real processes, real sockets, read as a third party would."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from common import config as configuration
from common.messages import CameraState, Message, Result, Stats
from common.news import NewsReader
from common.settings import Config
from tests.conftest import ROOT, stage_environment, wait_until
from tests.people import own_data_dir

STARTS_WITHIN_S = 60.0


class Running:
    """``launch.py --headless`` with a private configuration; ends with the ``with`` block, and must end well.

    Attributes:
        environment: variables that it is started with besides.
        prefix: a command that starts it, as ``nice`` does.
        results, states, stats: what came over the news so far; of states and stats the newest by camera and sender.
    """

    environment: dict[str, str] = {}  # noqa: RUF012
    prefix: tuple[str, ...] = ()

    def __init__(self, config: Config, source: str, *arguments: str, **overrides: Any) -> None:
        cameras = {"cam0": {"source": source}}
        settings = config.model_dump(mode="json") | {"cameras": cameras, "run_dir": str(config.run_dir / "run")}
        settings["storage"]["data_dir"] = str(own_data_dir(config.run_dir / "data"))
        settings["pipeline"]["first_track"] = 1
        settings["dashboard"]["enabled"] = False  # unless the test is about it: it takes seconds to start
        for section, values in overrides.items():
            settings[section] = settings[section] | values if isinstance(values, dict) else values
        self.path = config.run_dir / "running.json"
        self.config = configuration.load(overrides=settings, environment={})
        configuration.save(self.config, self.path)
        self.log = config.run_dir / "running.log"
        self._reader = NewsReader(self.config, ("results.", "camera.", "stats."))
        self.process = self.started(*arguments)
        self.results: list[Result] = []
        self.states: dict[str, CameraState] = {}
        self.stats: dict[str, Stats] = {}

    def started(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it with the saved configuration."""
        with self.log.open("wb") as log:
            command = [sys.executable, str(ROOT / "launch.py"), "--headless", "--verbose", "--config", str(self.path)]
            return subprocess.Popen(
                [*self.prefix, *command, *arguments],
                env=stage_environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def said(self) -> str:
        """Return all that it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def read(self) -> list[tuple[str, Message]]:
        """Take in the news that have come, and return them."""
        news = self._reader.read(timeout_ms=50)
        for _, message in news:
            if isinstance(message, Result):
                self.results.append(message)
            elif isinstance(message, CameraState):
                self.states[message.camera] = message
            elif isinstance(message, Stats):
                self.stats[message.sender] = message
        return news

    def until(self, predicate: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """Read news until the predicate is true; return its value."""

        def holds() -> Any:
            self.read()
            assert self.process.poll() is None, self.said()
            return predicate()

        return wait_until(holds, timeout_s, f"{what}; it said:\n{self.said()[-3000:]}")

    def fresh_results(self, count: int = 10, timeout_s: float = STARTS_WITHIN_S) -> list[Result]:
        """Return ``count`` results that come from now on."""
        self.read()
        have = len(self.results)
        self.until(lambda: len(self.results) >= have + count, f"{count} results", timeout_s)
        return self.results[have:]

    def processes(self, stage: str) -> list[psutil.Process]:
        """Return the running processes of a stage, oldest first."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if f"stages.{stage}" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda child: child.pid)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(15)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        began = time.monotonic()
        code = self.stop()
        self._reader.close()
        if kind is None:  # otherwise the test has failed already, with a better reason
            assert code == 0, self.said()
            assert time.monotonic() - began < 10, self.said()
