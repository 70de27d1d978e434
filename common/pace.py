"""Something that is done at most so often, in media time."""

from __future__ import annotations

import math


class Pace:
    """Says whether it is time again.

    Args:
        every_s: at least so long lies between two times; 0: it always is.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last_s = -math.inf

    def due(self, at_s: float) -> bool:
        """Whether it is time at ``at_s``; it is taken that it is done then. A time before the last one is not."""
        if at_s - self._last_s < self._every_s:
            return False
        self._last_s = at_s
        return True
