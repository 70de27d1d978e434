"""What each pool has to do and cannot, from the figures that all processes publish. Pure: messages in, numbers out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Final

from common.messages import Stats
from common.settings import POOLS

STALE_S: Final = 5.0  # figures older than this are of somebody who is gone
# What the conductor counts when work found no worker in time. Of identity nothing is lost: its jobs wait.
_LOST: Final = {"detection": "displaced", "expression": "late_expressions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A pool's work within the last second.

    Attributes:
        workers: that are connected to the conductor.
        waiting: jobs that wait for one.
        lost_s: jobs a second that none was free for in time.
        done_s: jobs a second that were done.
        service_s: seconds that a job takes; 0 when none was done.
    """

    workers: int
    waiting: int = 0
    lost_s: float = 0.0
    done_s: float = 0.0
    service_s: float = 0.0

    @property
    def offered(self) -> float:
        """How many workers all this work would keep busy all of the time."""
        return (self.done_s + self.lost_s) * self.service_s

    @property
    def lost_share(self) -> float:
        """What part of the work was lost."""
        total = self.done_s + self.lost_s
        return self.lost_s / total if total else 0.0


@dataclass(slots=True)
class _Conductor:
    sender: str
    at: float
    counts: dict[str, float]
    lost_s: dict[str, float] = field(default_factory=dict)


class Backlog:
    """Keeps the newest figures of the conductor and of the workers."""

    def __init__(self) -> None:
        self._conductor: _Conductor | None = None
        self._workers: dict[str, tuple[Stats, float]] = {}

    def note(self, stats: Stats, now: float) -> bool:
        """Take in one message; return whether it was the conductor's, and so there is something new to decide."""
        if stats.stage in POOLS:
            self._workers[stats.sender] = (stats, now)
            return False
        if stats.stage != "conductor":
            return False
        counts = {key: value for key, value in stats.detail.items() if isinstance(value, float)}
        before = self._conductor
        fresh = _Conductor(stats.sender, now, counts)
        # Another conductor counts from nought; so does the first message, of which the past is not known.
        if before is not None and before.sender == stats.sender and now > before.at:
            for pool, key in _LOST.items():
                fresh.lost_s[pool] = max(0.0, counts.get(key, 0.0) - before.counts.get(key, 0.0)) / (now - before.at)
        self._conductor = fresh
        return True

    def demand(self, pool: str, now: float) -> Demand | None:
        """Return what is known of a pool now; None when the conductor has been silent."""
        conductor = self._conductor
        if conductor is None or now - conductor.at > STALE_S:
            return None
        for sender in [sender for sender, (_, at) in self._workers.items() if now - at > STALE_S]:
            del self._workers[sender]
        figures = [stats for stats, _ in self._workers.values() if stats.stage == pool]
        times = [stats.p50_ms for stats in figures if stats.p50_ms > 0]
        return Demand(
            workers=int(conductor.counts.get(f"{pool}_workers", 0)),
            waiting=int(conductor.counts.get(f"{pool}_waiting", 0)),
            lost_s=conductor.lost_s.get(pool, 0.0),
            done_s=sum(stats.out_s for stats in figures),
            service_s=statistics.median(times) / 1e3 if times else 0.0,
        )
