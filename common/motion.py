"""Whether anything moves in front of a camera, at a price that is small beside a look for faces. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

ACROSS: Final = 160
"""Pixels that are looked at along the longer side: every fourth of a picture of 640."""
BLOCK: Final = 5
"""So many of them a side are averaged: noise of single pixels goes, a face of 20 pixels in a picture of 640 stays."""
CHANGE: Final = 8.0
"""Grey values by which a block must differ."""
FORGET_S: Final = 0.5
"""A picture is compared with one that is at most so old: light changes slowly all day."""


class Motion:
    """Compares the pictures of one camera with one from a moment ago."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None
        self._before_s = 0.0

    def moved(self, pixels: NDArray[np.uint8], at_s: float) -> bool:
        """Return whether a picture, (H, W, 3) uint8, taken at this time (media time, seconds), shows a change."""
        now = _blocks(pixels)
        before, age_s = self._before, at_s - self._before_s
        if before is None or before.shape != now.shape or not 0 <= age_s <= 2 * FORGET_S:
            changed = True
        else:
            changed = bool(np.abs(now - before).max() > CHANGE)
        if changed or age_s >= FORGET_S:
            self._before, self._before_s = now, at_s
        return changed


def _blocks(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    step = max(1, -(-max(pixels.shape[:2]) // ACROSS))
    green = pixels[step // 2 :: step, step // 2 :: step, 1]
    rows, columns = (side // BLOCK * BLOCK for side in green.shape)
    if not rows or not columns:  # a sliver: all of it
        return green.astype(np.float32)
    blocks = green[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))
