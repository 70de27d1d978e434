"""The background: how near to a face people in general are.

Embeddings are not spread evenly. Where the network tells people apart less well (children, and those of whom it saw few
while it was trained), two strangers lie as near together as two photographs of one person do elsewhere. So how near the
nearest of people in general are says how near a face must be to be somebody's.

What is kept of people in general are middles of groups of some dozens of faces, and how wide the groups are: nobody's
own embedding. ``python -m models.train.background`` makes the file.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

WEIGHTS: Final = Path(__file__).parent / "weights" / "background.npz"
NEAREST: Final = 0.02  # of people in general, whose mean distance is taken

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Groups of faces of people in general.

    Attributes:
        middles: (G, 128) float32.
        widths: (G,) float32, root mean square of the distances of a group's faces to its middle.
        shares: (G,) float32, how much of all people each group is; together 1.
    """

    middles: Floats
    widths: Floats
    shares: Floats

    def crowd(self, embeddings: Floats) -> Floats:
        """Return the mean distance of each embedding, (N, 128), to the nearest two of a hundred people: (N,)."""
        squares = (embeddings**2).sum(axis=1)[:, None] + (self.middles**2).sum(axis=1) + self.widths**2
        apart = np.sqrt(np.maximum(squares - 2 * embeddings @ self.middles.T, 0))
        order = np.argsort(apart, axis=1)
        # Whole groups, nearest first, and of the last one as much as is missing.
        upto = np.minimum(np.cumsum(self.shares[order], axis=1), NEAREST)
        taken = np.diff(upto, axis=1, prepend=0)
        near: Floats = ((np.take_along_axis(apart, order, axis=1) * taken).sum(axis=1) / NEAREST).astype(np.float32)
        return near


@functools.cache
def shipped() -> Background:
    """Return the background that comes with Mien. Raises ModelError: its file is missing or damaged."""
    try:
        with np.load(WEIGHTS, allow_pickle=False) as kept:
            arrays = {name: kept[name].astype(np.float32) for name in ("middles", "widths", "shares")}
    except (OSError, ValueError, KeyError) as error:
        # Only here: whoever compares faces, or just reads people, does not need the libraries that run networks.
        from models.runtime import ModelError

        raise ModelError(f"the file {WEIGHTS} cannot be read ({error}): install Mien again") from error
    return Background(**arrays)
