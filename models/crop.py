"""From a detected face to the square picture that the expression network was trained for.

The one place that decides it: detection, evaluation and the range of the training augmentation all follow from here.
Coordinates are continuous pixels: pixel i covers i to i + 1, so the middle of the first pixel is 0.5.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SIZE: Final = 48
"""Side of the expression network's input in pixels."""

SIDE: Final = 1.18
"""Side of the square, in longer sides of the detector's box: of sides from 0.95 to 1.3, one with which the sample
clips are followed best (``python -m bench.expression``)."""

LEFT_ANGLE_DEG: Final = 10.0
"""So much of a head's tilt stays: the network learned from heads that lean, and the eyes' landmarks tremble."""

LARGEST_ANGLE_DEG: Final = 45.0
"""Eye lines steeper than this are taken for wrong landmarks, and the square stays upright."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """A square in a picture: middle and side in pixels, clockwise rotation in degrees."""

    cx: float
    cy: float
    side: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cx) and math.isfinite(self.cy) and math.isfinite(self.angle)):
            raise ValueError(f"a square needs finite numbers, got {self}")
        if not (math.isfinite(self.side) and self.side > 0):
            raise ValueError(f"a square needs a side above 0 px, got {self.side}")


def face_square(
    box: NDArray[np.floating] | tuple[float, float, float, float],
    landmarks: NDArray[np.floating] | None,
    *,
    side: float = SIDE,
) -> Square:
    """The square to show to the expression network.

    ``box`` is (x, y, w, h) in pixels, ``landmarks`` (5, 2) in pixels: the eye on the left of the picture, the
    one on the right, nose, mouth corners; None leaves the square upright. ``side`` is in longer sides of the box, and
    differs from what the network was trained for only to compare. ValueError for a box without area or numbers that are
    not finite.
    """
    x, y, width, height = (float(value) for value in box)
    if not (width > 0 and height > 0):
        raise ValueError(f"a face's box needs width and height above 0 px, got {width} × {height}")
    angle = 0.0 if landmarks is None else tilt(landmarks)
    angle = math.copysign(max(0.0, abs(angle) - LEFT_ANGLE_DEG), angle)
    return Square(cx=x + width / 2, cy=y + height / 2, side=side * max(width, height), angle=angle)


def tilt(landmarks: NDArray[np.floating]) -> float:
    """Clockwise rotation of the eye line in degrees, 0 where it is steeper than a face can be upright."""
    if np.shape(landmarks) != (5, 2):
        raise ValueError(f"expected landmarks (5, 2), got {np.shape(landmarks)}")
    dx, dy = (float(value) for value in landmarks[1] - landmarks[0])
    angle = math.degrees(math.atan2(dy, dx))
    return angle if abs(angle) <= LARGEST_ANGLE_DEG else 0.0


def cut(picture: NDArray[np.uint8], square: Square, size: int = SIZE) -> NDArray[np.uint8]:
    """The square of the picture, turned upright, as grey (size, size) uint8.

    ``picture`` is (H, W, 3) BGR or (H, W) grey, uint8. What lies beyond its border repeats the border's pixels.
    Shrinks by averaging areas, so that large faces do not alias.
    """
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(f"expected a picture (H, W, 3) or (H, W) uint8, got {picture.shape} {picture.dtype}")
    height, width = picture.shape[:2]
    if height == 0 or width == 0 or size < 1:
        raise ValueError(f"cannot cut {size} px out of a picture of {width} × {height}")
    turn = math.radians(square.angle)
    reach = square.side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn))) + 2
    left, right = _span(square.cx, reach, width)
    top, bottom = _span(square.cy, reach, height)
    patch = picture[top:bottom, left:right]

    # The turn below looks at neighbouring pixels only; halving is the quick way to average areas of a large face.
    cx, cy, side = square.cx - left, square.cy - top, square.side
    while side > 4 * size and min(patch.shape[:2]) > 1:
        patch = halved(patch)
        cx, cy, side = cx / 2, cy / 2, side / 2
    grey: Picture = patch if patch.ndim == 2 else np.asarray(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY), dtype=np.uint8)

    fine = 2 * size if side > size else size
    cos, sin = math.cos(turn) * side / fine, math.sin(turn) * side / fine
    middle = (fine - 1) / 2
    to_patch = np.array([[cos, -sin, cx - 0.5 - middle * (cos - sin)], [sin, cos, cy - 0.5 - middle * (sin + cos)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    upright = cv2.warpAffine(grey, to_patch, (fine, fine), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if fine != size:
        upright = cv2.resize(upright, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(upright, dtype=np.uint8)


def halved(patch: Picture) -> Picture:
    """Half as wide and high, by averages of 2×2 pixels; an odd last row or column is left out."""
    height, width = patch.shape[0] // 2, patch.shape[1] // 2
    halved = cv2.resize(patch[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(halved, dtype=np.uint8)


def _span(middle: float, reach: float, length: int) -> tuple[int, int]:
    """The pixels within reach of the middle, cut off at 0 and length, at least one."""
    first = min(max(0, math.floor(middle - reach)), length - 1)
    last = max(min(length, math.ceil(middle + reach)), first + 1)
    return first, last
