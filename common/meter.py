"""What a process knows of its own work: rates, drops, times, memory."""

from __future__ import annotations

import contextlib
import time
from collections import deque

import psutil

from common.clock import ticked

EVERY_S = 1.0
IDLE_EVERY_S = 2.0
_KEPT_S = 5.0


class Meter:
    """Counts work and turns it into the figures of a ``Stats`` message, once a second."""

    def __init__(self) -> None:
        self.taken = 0
        self.given = 0
        self.dropped = 0
        self.bad_messages = 0
        self._times: deque[tuple[float, float]] = deque()  # (when, milliseconds)
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only sets the mark
        self._rss_mb = self._own_mb = self._cpu = 0.0
        self._last = (time.monotonic(), 0, 0)

    def worked(self, milliseconds: float) -> None:
        """Note that one piece of work took this long."""
        self._times.append((time.monotonic(), milliseconds))

    def own_mb(self) -> float:
        """Return the memory that is this process's own, MB: pictures in shared memory are everybody's."""
        self._look()
        return self._own_mb

    def _look(self) -> None:
        # Asking opens a file: without a descriptor left, what was known last has to do.
        with contextlib.suppress(OSError):
            memory = self._process.memory_info()
            self._rss_mb = memory.rss / 2**20
            self._own_mb = (memory.rss - getattr(memory, "shared", 0)) / 2**20

    def due(self) -> bool:
        """Whether a second has passed since the last ``figures``; where there was nothing to do, the next two."""
        then, taken, given = self._last
        if (taken, given) != (self.taken, self.given):
            return time.monotonic() - then >= EVERY_S
        return ticked(then, IDLE_EVERY_S)

    def figures(self) -> dict[str, float | int]:
        """Return the fields of ``Stats`` that a meter knows; rates are since the previous call."""
        now = time.monotonic()
        then, taken, given = self._last
        self._last = (now, self.taken, self.given)
        while self._times and now - self._times[0][0] > _KEPT_S:
            self._times.popleft()
        times = sorted(milliseconds for _, milliseconds in self._times)
        seconds = max(now - then, 1e-3)
        self._look()
        with contextlib.suppress(OSError):
            self._cpu = self._process.cpu_percent() / 100
        return {
            "in_s": (self.taken - taken) / seconds,
            "out_s": (self.given - given) / seconds,
            "dropped": self.dropped,
            "p50_ms": percentile(times, 0.50),
            "p95_ms": percentile(times, 0.95),
            "rss_mb": self._rss_mb,
            "cpu": self._cpu,
            "bad_messages": self.bad_messages,
        }


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which ``share`` of an ascending list lies; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
