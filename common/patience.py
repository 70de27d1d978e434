"""How long a line of frames waits for its detector: as long as looks take here, and not for one that hangs. Pure."""

from __future__ import annotations

import statistics
from collections import deque

LOOKS = 31  # so many looks of a kind say how long one takes …
OVERDUE = 3.0  # … and one that takes so many times as long is not waited for
SLOW = 2.0  # a picture waits for its analysis for so many looks, where looks are slow …
LONGEST_S = 2.0  # … and no longer than this: then people want to see what goes on rather than who it is


class Patience:
    """Remembers how long looks have taken, those at whole pictures and those close to known faces apart.

    Args:
        stall_s: ``pipeline.stall_ms``; nothing that takes less is called slow.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._took_s: dict[bool, deque[float]] = {close: deque(maxlen=LOOKS) for close in (False, True)}

    def answered(self, took_s: float, *, close: bool) -> None:
        """The detector has answered after so long."""
        self._took_s[close].append(took_s)

    def is_overdue(self, waited_s: float, *, close: bool) -> bool:
        """Whether a look that others have overtaken takes much longer than looks of its kind do."""
        took_s = self._took_s[close]
        return bool(took_s) and waited_s > max(self._stall_s, OVERDUE * statistics.median(took_s))

    def is_too_long(self, waited_s: float) -> bool:
        """Whether a picture has waited so long for its analysis that it had better be shown without.

        Where looks are slow, pictures come with their faces, only later and fewer: those without would show nobody.
        """
        if waited_s <= self._stall_s:
            return False
        slowest_s = max((statistics.median(took_s) for took_s in self._took_s.values() if took_s), default=0.0)
        return waited_s > max(self._stall_s, min(SLOW * slowest_s, LONGEST_S))
