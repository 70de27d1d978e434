"""The surroundings of faces whose places are roughly known, side by side in one small input of the detector.

A detection takes time by the size of its input. Where faces are expected, nothing else of the picture need be looked
at; and each face gets a size at which the detector sees it well, so that small ones are found better than in the whole
picture (``python bench/detector.py close``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.crop import halved

REACH = 1.75  # side of what is looked at around a face, in longer sides of its box
CENTRAL = 0.3  # a face belongs to the tile whose middle its own is near: by so much of the tile's side, each way


@dataclass(frozen=True, slots=True)
class Layout:
    """A square sheet of ``across`` × ``across`` tiles, ``tile`` pixels long each."""

    across: int
    tile: int

    @property
    def side(self) -> int:
        return self.across * self.tile

    @property
    def places(self) -> int:
        return self.across**2


# Two sizes of input, as each is one more network that a worker keeps in memory.
LAYOUTS = (Layout(1, 96), Layout(2, 96), Layout(3, 64))


def layout_for(faces: int) -> Layout:
    """The first sheet for so many faces: the smallest on which all have a place, or the fullest."""
    return next((layout for layout in LAYOUTS if faces <= layout.places), LAYOUTS[-1])


def pixels(faces: int) -> int:
    """How many pixels the detector looks at for so many faces."""
    layout = layout_for(faces)
    return math.ceil(faces / layout.places) * layout.side**2


@dataclass(frozen=True, slots=True)
class _Tile:
    x: int  # of the region's upper left corner in the picture, which may lie outside
    y: int
    side: int


class Sheet:
    """Lays regions of a picture into an input of the detector, and finds its way back.

    Args:
        layout: how tiles lie.
        boxes: (x, y, width, height) each, pixels of the picture, at most ``layout.places``; ValueError for more.
    """

    def __init__(self, layout: Layout, boxes: Sequence[Sequence[float]]) -> None:
        if len(boxes) > layout.places:
            raise ValueError(f"a sheet of {layout.places} places cannot take {len(boxes)} faces")
        self.layout = layout
        self._tiles = [_tile(*box) for box in boxes]

    def lay(self, picture: NDArray[np.uint8], canvas: NDArray[np.float32]) -> None:
        """Fill ``canvas``, (side, side, 3) float32, from ``picture``, (H, W, 3) uint8; places without a face are 0."""
        size = self.layout.tile
        for place in range(self.layout.places):
            row, column = divmod(place, self.layout.across)
            spot = canvas[row * size : (row + 1) * size, column * size : (column + 1) * size]
            spot[:] = _cut(picture, self._tiles[place], size) if place < len(self._tiles) else 0

    def to_picture(
        self, boxes: NDArray[Any], scores: NDArray[Any], landmarks: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Faces found on the sheet, (N, 4), (N,), (N, 5, 2) in its pixels, as faces of the picture, in the picture's.

        Leaves out those that are not in the middle of a tile: what else is to be seen there may be cut.
        """
        middles = (boxes[:, :2] + boxes[:, 2:] / 2) / self.layout.tile
        cells = np.floor(middles).astype(int)
        kept = np.all(np.abs(middles - cells - 0.5) <= CENTRAL, axis=1)
        places = cells[:, 1] * self.layout.across + cells[:, 0]
        kept &= (places >= 0) & (places < len(self._tiles)) & (cells[:, 0] >= 0) & (cells[:, 0] < self.layout.across)
        tiles = [self._tiles[place] for place in places[kept]]
        scale = np.array([tile.side for tile in tiles]).reshape(-1, 1) / self.layout.tile
        # Of the whole sheet's pixels to the picture's: away with the place on the sheet, then out of the region.
        shift = np.array([(tile.x, tile.y) for tile in tiles]).reshape(-1, 2) - cells[kept] * self.layout.tile * scale
        corner = boxes[kept, :2] * scale + shift
        points = landmarks[kept] * scale[:, None] + shift[:, None]
        return np.concatenate([corner, boxes[kept, 2:] * scale], axis=1), scores[kept], points


def _tile(x: float, y: float, width: float, height: float) -> _Tile:
    side = max(2, round(REACH * max(width, height)))
    return _Tile(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side)


def _cut(picture: NDArray[np.uint8], tile: _Tile, size: int) -> NDArray[np.uint8]:
    """The region, ``size`` pixels long; beyond the picture its border goes on."""
    height, width = picture.shape[:2]
    left, top = min(max(tile.x, 0), width - 1), min(max(tile.y, 0), height - 1)
    right, bottom = max(min(tile.x + tile.side, width), left + 1), max(min(tile.y + tile.side, height), top + 1)
    region: NDArray[Any] = picture[top:bottom, left:right]
    x, y, scale = float(tile.x - left), float(tile.y - top), tile.side / size
    # What follows looks at neighbouring pixels only. Halving is many times quicker than averaging areas of other sizes.
    while scale >= 2 and min(region.shape[:2]) > 1:
        region = halved(region)
        x, y, scale = x / 2, y / 2, scale / 2
    shift = scale / 2 - 0.5
    to_region = np.array([[scale, 0, x + shift], [0, scale, y + shift]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(region, to_region, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
