"""Which frames the detector need not look at, because nobody has been in view for a while. Pure; time is media time.

A room is empty most of the day. Then a look every so often is enough, and less often still while nothing moves: whoever
comes is found by the next one, and from that moment on every frame counts again.
"""

from __future__ import annotations

import math
from typing import Final

AFTER_S: Final = 2.0  # without anybody in view
"""For how long looks must have found nobody before frames are left out."""
LATE_S: Final = 2.0
"""Where the answer of a look is later than this, nobody knows who is in view."""


class Quiet:
    """Decides for one camera.

    Args:
        every_s: longest pause between two looks, seconds; 0: look at every frame, always.
        still_s: longest pause while nothing moves.
    """

    def __init__(self, every_s: float, still_s: float = 0.0) -> None:
        self._every_s = every_s
        self._still_s = max(every_s, still_s)
        self._anybody_s = -math.inf  # when somebody was in view last, or when the first frame came
        self._seen_s = -math.inf  # the last frame of which it is known who was in view
        self._looked_s = -math.inf  # the last frame that is being looked at
        self._still = True  # since then

    def seen(self, at_s: float, anybody: bool) -> None:
        """A frame has been looked at; ``anybody`` says whether a face was in it, or is still followed."""
        self._seen_s = max(self._seen_s, at_s)
        if anybody:
            self._anybody_s = max(self._anybody_s, at_s)

    def nobody(self, at_s: float) -> bool:
        """Return whether nobody has been in view for so long that frames may be left out.

        By what looks have found, and not by the clock: where one takes a second, there are none for two of them. And
        not for long after the last answer: a detector that has gone finds nobody, whoever is there.
        """
        if not self._every_s or at_s < self._looked_s or self._seen_s - self._anybody_s <= AFTER_S:
            return False
        return at_s - self._seen_s <= self._still_s + LATE_S

    def skips(self, at_s: float, *, moving: bool | None = None) -> bool:
        """Return whether the frame taken at this time may be left out; if not, it counts as looked at.

        ``moving`` says whether anything moves in it; None: nobody knows.
        """
        if self._anybody_s == -math.inf or at_s < self._looked_s:  # the first frame, or a clip that begins again
            self._anybody_s = at_s
        self._still = self._still and moving is False
        pause_s = self._still_s if self._still else self._every_s
        if self.nobody(at_s) and at_s - self._looked_s < pause_s:
            return True
        self._looked_s, self._still = at_s, True
        return False
