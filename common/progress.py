"""How far a long piece of work is: a bar with an estimate on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY_S = 10.0


class Progress:
    """Shows on standard error how many of the frames are done.

    Args:
        total: how many there will be; None if that is unknown.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._began = self._said_at = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames  {task.fields[rate]:.1f}/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("frames", total=total, rate=0.0)

    def show(self, done: int) -> None:
        """Show that so many frames are done; call it as often as you like."""
        now = time.monotonic()
        rate = done / max(now - self._began, 1e-3)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=rate)
        elif now - self._said_at >= LINE_EVERY_S:
            self._said_at = now
            left = f", about {max(0.0, (self._total - done) / rate):.0f} s left" if self._total and rate else ""
            of = f" of {self._total}" if self._total else ""
            print(f"{done}{of} frames, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
