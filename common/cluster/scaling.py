"""How many workers a pool is to have. Pure: no cluster, no clock of its own.

A pool grows when work is lost or queues up for a while, at once by as many as the work would keep busy; it shrinks by
one when those that stay would be idle for much of the time, for much longer. Between the two lies a band in which
nothing changes, so that a pool does not swing. Any change of the number of workers starts the waiting anew: what was
measured before says nothing about the pool that is there now.
"""

from __future__ import annotations

import math
from collections import deque

from common.cluster.backlog import Demand
from common.cluster.settings import PoolConfig, ScalingConfig


class Scaling:
    """Decides for one pool.

    Args:
        first: how many workers it begins with; brought within the pool's bounds.

    Attributes:
        wanted: how many workers there ought to be now.
        reason: why, in words for people; "" until something has changed.
    """

    def __init__(self, pool: PoolConfig, limits: ScalingConfig, first: int) -> None:
        self._pool = pool
        self._limits = limits
        self.wanted = min(max(first, pool.minimum), pool.maximum)
        self.reason = ""
        self._pressed_since: float | None = None
        self._idle_since: float | None = None
        self._workers = -1

    def look(self, demand: Demand, now: float) -> int:
        """Take in a measurement, one a second or so; return how many workers are wanted."""
        if demand.workers != self._workers:
            self._workers = demand.workers
            self._rest()
        # Until those that were asked for have come, more of them would be asked for the same lack.
        pressed = self._pressed(demand) and demand.workers >= self.wanted
        idle = self._idle(demand) and demand.workers <= self.wanted
        self._pressed_since = (now if self._pressed_since is None else self._pressed_since) if pressed else None
        self._idle_since = (now if self._idle_since is None else self._idle_since) if idle else None
        if self._pressed_since is not None and now - self._pressed_since >= self._limits.grow_after_s:
            needed = math.ceil(demand.offered / self._limits.busy)
            self._change(max(self.wanted + 1, needed), _why(demand))
        elif self._idle_since is not None and now - self._idle_since >= self._limits.shrink_after_s:
            self._change(self.wanted - 1, f"{demand.offered:.1f} workers' worth of work")
        return self.wanted

    def no_room(self, workers: int) -> None:
        """The cluster has no place for more than this many now: be content with them, and ask again later."""
        self.wanted = min(max(workers, self._pool.minimum), self.wanted)
        self._rest()

    def _pressed(self, demand: Demand) -> bool:
        return demand.waiting > demand.workers or demand.lost_share > self._limits.lost_share

    def _idle(self, demand: Demand) -> bool:
        rest = demand.workers - 1
        if rest < self._pool.minimum or self._pressed(demand):
            return False
        return demand.offered == 0 if rest == 0 else demand.offered / rest < self._limits.idle

    def _change(self, count: int, reason: str) -> None:
        count = min(max(count, self._pool.minimum), self._pool.maximum)
        if count != self.wanted:
            self.wanted, self.reason = count, reason
        self._rest()

    def _rest(self) -> None:
        self._pressed_since = self._idle_since = None


class Replacements:
    """How many failed workers of a pool are replaced: so many within so long, lest what fails everywhere goes round.

    Args:
        most: replacements …
        within_s: … in any stretch of time of this length.
    """

    def __init__(self, most: int, within_s: float) -> None:
        self._within_s = within_s
        self._at: deque[float] = deque(maxlen=most)

    def left(self, now: float) -> bool:
        """Whether another one may be replaced."""
        return len(self._at) < (self._at.maxlen or 0) or now - self._at[0] >= self._within_s

    def take(self, now: float) -> bool:
        """Return whether a worker that failed may be replaced, which then counts."""
        if not self.left(now):
            return False
        self._at.append(now)
        return True


def _why(demand: Demand) -> str:
    if demand.lost_share > 0:
        return f"{100 * demand.lost_share:.0f} % of its work found no worker in time"
    return f"{demand.waiting} jobs waited for {demand.workers} workers"
