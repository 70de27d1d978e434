"""Clocks: one monotonic clock a machine, and a name for the machine, so that no two machines' clocks are ever mixed."""

from __future__ import annotations

import functools
import hashlib
import math
import time
import uuid
from pathlib import Path

import psutil

from common.messages import Clock

JUMP_S = 1.0


class Jumps:
    """Notices when the wall clock is set, so that whoever remembers moments can move them: 10 s ago stays 10 s ago."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def seconds(self) -> float:
        """Return by how much the clock was set since the last call, 0 where it only runs a little fast or slow."""
        offset = time.time() - time.monotonic()
        jump, self._offset = offset - self._offset, offset
        return jump if abs(jump) >= JUMP_S else 0.0


def to_tick_s(every_s: float) -> float:
    """Return the time to the next multiple of so many seconds on the machine's monotonic clock.

    Whoever has nothing to do wakes at these moments: what all the idle processes of a machine say comes to the others
    at once then, who wake once for it and not once for each.
    """
    now = time.monotonic()
    return (math.floor(now / every_s) + 1) * every_s - now


def ticked(since: float, every_s: float) -> bool:
    """Whether such a moment has passed since a reading of ``time.monotonic()``."""
    return math.floor(time.monotonic() / every_s) > math.floor(since / every_s)


@functools.cache
def host() -> str:
    """Return an id of this machine and its start: readings of the monotonic clock compare only within one.

    On Linux a container may have a clock of its own: those of one time namespace share theirs.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/time")
    try:
        own = namespace.readlink().name.strip("time:[]") if namespace.is_symlink() else ""
        return f"{boot.read_text(encoding='ascii').strip()}-{own}"[:64]
    except OSError:  # not Linux
        started = f"{uuid.getnode()}-{round(psutil.boot_time() / 60)}"
        return hashlib.sha256(started.encode()).hexdigest()[:32]


def reading(monotonic_ns: int | None = None) -> Clock:
    """Return this machine's clock as a message carries it."""
    return Clock(host=host(), monotonic_ns=time.monotonic_ns() if monotonic_ns is None else monotonic_ns)


def latency_ms(captured: Clock, age_ms: float, received: float, now: float) -> float:
    """Return the time since capture.

    Args:
        captured: the capturing machine's clock at capture.
        age_ms: how old the picture was when it was sent, on that machine's clock.
        received, now: this machine's ``time.monotonic()``.

    On one machine it is a plain difference. Between two it is the age at sending plus the time spent here: their
    clocks are never compared, so the time on the wire is left out rather than guessed.
    """
    if captured.host == host():
        return max(0.0, now * 1e3 - captured.monotonic_ns / 1e6)
    return age_ms + max(0.0, now - received) * 1e3
