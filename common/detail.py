"""How closely the detector shall look at the next frame. Pure; time is media time.

The time of a detection goes with the square of the input's size, which is set for the smallest faces worth finding.
While all faces in view are larger than that, a smaller input finds them as well; a look at full size every so often
finds whoever else comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from common.tracks import Track

RUNGS: Final = (
    0.5,
)  # shares of the full input size, smallest first; each is one more network that a detection worker keeps
FULL_EVERY_S: Final = 0.15  # somebody small who comes is seen so soon
SMALLEST_PX: Final = 13.0  # faces in view must be so large in the network's input: `python bench/models.py`


class Detail:
    """Chooses the share of the detector's input size for one camera.

    Args:
        input_long_side: longer side of the full input, pixels.
        adapt: False: always the full size.
    """

    def __init__(self, input_long_side: int, *, adapt: bool = True) -> None:
        self._input_long_side = input_long_side
        self._adapt = adapt
        self._full_at_s = -math.inf  # the last frame that was looked at in full
        self._looked_s = -math.inf  # the last frame whose faces have been tracked

    def looked(self, at_s: float) -> None:
        """The faces of a frame have been tracked."""
        self._looked_s = at_s

    def choose(self, at_s: float, long_side: int, tracks: Sequence[Track]) -> float:
        """Return the share for a frame, ``long_side`` pixels long, taken at a time: 1.0 or one of ``RUNGS``."""
        # A face that was not found the last time is not given up before a closer look.
        missed = any(track.seen_s < self._looked_s for track in tracks)
        if not self._adapt or not tracks or missed or at_s - self._full_at_s >= FULL_EVERY_S or at_s < self._full_at_s:
            self._full_at_s = at_s
            return 1.0
        smallest = min(math.sqrt(max(float(track.box[2] * track.box[3]), 0.0)) for track in tracks)
        in_input = smallest * min(1.0, self._input_long_side / long_side)
        return next((share for share in RUNGS if in_input * share >= SMALLEST_PX), 1.0)
