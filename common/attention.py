"""Where the detector shall look in the next frame: everywhere, or only around the faces that are followed. Pure; time
is media time.

Faces that are followed stand near where they are expected, and to look there takes a fraction of the time that the
whole picture takes. A look at the whole picture every so often, and whenever a face was missed, finds everybody else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from common.messages import MAX_FACES, Box
from common.tracks import Track
from models import sheet

FULL_EVERY_S: Final = 0.15  # somebody who comes is seen so soon
LOST_S: Final = 0.5  # a face unseen for so long may be anywhere
SHY_S: Final = 1.0  # a face that only a look at the whole picture finds is looked for in that way for so long
WORTH: Final = 0.6  # close looks must look at no more than this share of the whole picture's pixels


class Attention:
    """Chooses where to look for one camera.

    Args:
        input_long_side: longer side of the detector's input for the whole picture, pixels.
        close: False: always look everywhere.
    """

    def __init__(self, input_long_side: int, *, close: bool = True) -> None:
        self._input_long_side = input_long_side
        self.close = close
        self._full_at_s = -math.inf  # the last frame that was looked at everywhere
        self._looked_s = -math.inf  # the last frame whose faces have been tracked
        self._sought: frozenset[int] = frozenset()  # tracks for which that last look was made
        self._shy_until_s = -math.inf

    def looked(self, at_s: float) -> None:
        """The faces of a frame have been tracked."""
        self._looked_s = at_s

    def choose(self, at_s: float, size: tuple[int, int], tracks: Sequence[Track]) -> tuple[Box, ...] | None:
        """Return the boxes around which to look in a frame of that width and height; None: everywhere."""
        if not self.close:
            return None
        recent = (track for track in tracks if at_s - track.seen_s <= LOST_S)
        near = {track: box for track in recent if _touches(box := track.expected(at_s), size)}
        # A face that a close look has missed is looked for everywhere, once; and for a while where that alone finds it.
        missed = frozenset(track.id for track in near if self._full_at_s <= track.seen_s < self._looked_s)
        if any(track.id in missed & self._sought and track.seen_s == self._full_at_s for track in near):
            self._shy_until_s = at_s + SHY_S
        shy = 0 < self._shy_until_s - at_s <= SHY_S
        due = at_s - self._full_at_s >= FULL_EVERY_S or at_s < self._full_at_s or shy
        whole = size[0] * size[1] * min(1.0, self._input_long_side / max(size)) ** 2
        saves = 0 < len(near) <= MAX_FACES and sheet.pixels(len(near)) <= WORTH * whole
        if saves and not missed and not due:
            return tuple(near.values())
        self._full_at_s = at_s
        self._sought = missed
        return None


def _touches(box: Box, size: tuple[int, int]) -> bool:
    return box[0] < size[0] and box[1] < size[1] and box[0] + box[2] > 0 and box[1] + box[3] > 0
