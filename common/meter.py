"""What a process knows of its own work: rates, drops, times, memory."""

from __future__ import annotations

import time
from collections import deque

import psutil

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
        self._last = (time.monotonic(), 0, 0)

    def worked(self, milliseconds: float) -> None:
        """Note that one piece of work took this long."""
        self._times.append((time.monotonic(), milliseconds))

    def own_mb(self) -> float:
        """Return the memory that is this process's own, MB: pictures in shared memory are everybody's."""
        memory = self._process.memory_info()
        return float(memory.rss - getattr(memory, "shared", 0)) / 2**20

    def due(self) -> bool:
        """Whether a second has passed since the last ``figures``."""
        return time.monotonic() - self._last[0] >= 1.0

    def figures(self) -> dict[str, float | int]:
        """Return the fields of ``Stats`` that a meter knows; rates are since the previous call."""
        now = time.monotonic()
        then, taken, given = self._last
        self._last = (now, self.taken, self.given)
        while self._times and now - self._times[0][0] > _KEPT_S:
            self._times.popleft()
        times = sorted(milliseconds for _, milliseconds in self._times)
        seconds = max(now - then, 1e-3)
        return {
            "in_s": (self.taken - taken) / seconds,
            "out_s": (self.given - given) / seconds,
            "dropped": self.dropped,
            "p50_ms": percentile(times, 0.50),
            "p95_ms": percentile(times, 0.95),
            "rss_mb": self._process.memory_info().rss / 2**20,
            "cpu": self._process.cpu_percent() / 100,
            "bad_messages": self.bad_messages,
        }


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which ``share`` of an ascending list lies; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
