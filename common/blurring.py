"""Making faces unrecognisable in a picture, before it leaves the machine's memory."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from common.messages import Box, Picture

CELLS = 6  # of a face's longer side; what is left of it says that somebody is there, not who
WHOLE_CELLS = 16  # of a picture's longer side, where faces are not known
BLUR_MARGIN = 0.25  # of the box's size on each side: hair and ears say who somebody is, too


def fit_to_show(pixels: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    """Return a picture, (H, W, 3) uint8 BGR, in which nobody can be seen who must not be: itself, or a blurred copy."""
    if not picture.blur_all and not picture.blur:
        return pixels
    pixels = pixels.copy()
    if picture.blur_all:
        blur_all(pixels)
    else:
        blur_faces(pixels, picture.blur)
    return pixels


def wider(box: Box, margin: float = BLUR_MARGIN) -> Box:
    """Return a box that reaches farther on each side, by that part of its own size."""
    x, y, width, height = box
    return x - margin * width, y - margin * height, width * (1 + 2 * margin), height * (1 + 2 * margin)


def blur_faces(picture: NDArray[np.uint8], boxes: Sequence[Box]) -> None:
    """Blur boxes, x, y, width, height, of a picture, (H, W, 3) uint8 BGR, in place; what lies outside is left out.

    A mosaic of means, smoothed: unlike a Gaussian blur it cannot be undone, for each cell is one number.
    """
    rows, columns = picture.shape[:2]
    for x, y, width, height in boxes:
        left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
        right, bottom = min(columns, int(np.ceil(x + width))), min(rows, int(np.ceil(y + height)))
        if left < right and top < bottom:
            _blur(picture[top:bottom, left:right], CELLS)


def blur_all(picture: NDArray[np.uint8]) -> None:
    """Blur a whole picture, (H, W, 3) uint8 BGR, in place."""
    _blur(picture, WHOLE_CELLS)


def _blur(view: NDArray[np.uint8], cells: int) -> None:
    rows, columns = view.shape[:2]
    longest = max(rows, columns)
    size = (max(1, round(columns * cells / longest)), max(1, round(rows * cells / longest)))
    small = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
    view[:] = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
