"""A very cheap description of what somebody looks like, to keep people apart who pass in front of each other."""

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZE = 48
_GRID = 4
_ENLARGEMENT = 1.4  # hair and collar tell people apart better than the face itself does
_COARSE = 16  # pixels: what is read of the picture for one face
_COLOUR_WEIGHT = 2.0  # colour keeps better than lightness when light and pose change


def describe(picture: NDArray[np.uint8], box: ArrayLike) -> NDArray[np.float32]:
    """Colours around a face as (48,) float32 of unit length: compare two by their dot product, 1 is alike.

    `picture` is (H, W, 3) uint8 BGR, `box` x, y, width, height in pixels. A 4×4 thumbnail in CIE L*a*b* of the box
    enlarged by 1.4, its lightness taken relative to its own mean and spread. Raises ValueError when the enlarged box
    lies outside the picture.
    """
    x, y, width, height = (float(value) for value in np.asarray(box, np.float32))
    grow_x, grow_y = width * (_ENLARGEMENT - 1) / 2, height * (_ENLARGEMENT - 1) / 2
    left, right = max(0, int(x - grow_x)), min(picture.shape[1], int(x + width + grow_x) + 1)
    top, bottom = max(0, int(y - grow_y)), min(picture.shape[0], int(y + height + grow_y) + 1)
    if left >= right or top >= bottom:
        raise ValueError(
            f"the box at {x:.1f}, {y:.1f} lies outside the picture of {picture.shape[1]} × {picture.shape[0]}"
        )
    step = max(1, min(right - left, bottom - top) // _COARSE)
    coarse = np.ascontiguousarray(picture[top:bottom:step, left:right:step])
    thumbnail = cv2.resize(coarse, (_GRID, _GRID), interpolation=cv2.INTER_AREA) * np.float32(1 / 255)
    lab: NDArray[np.float32] = np.asarray(cv2.cvtColor(thumbnail, cv2.COLOR_BGR2LAB), np.float32)
    mean, spread = cv2.meanStdDev(lab)
    lightness = lab[:, :, 0]
    lightness -= mean[0, 0]
    lightness *= 20.0 / (spread[0, 0] + 5.0)
    lab[:, :, 1:] *= _COLOUR_WEIGHT
    vector = lab.reshape(-1)
    return vector / np.float32(max(math.sqrt(float(vector @ vector)), 1e-6))
