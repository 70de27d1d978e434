"""What the tests of the face models share: the sample photos and how much two boxes overlap."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from common.media import sample


@cache
def _photo(name: str) -> NDArray[np.uint8]:
    picture = cv2.imread(str(sample(name)), cv2.IMREAD_COLOR)
    assert picture is not None, name
    picture.setflags(write=False)
    return picture


def photo(name: str) -> NDArray[np.uint8]:
    """A copy of a sample photo, (H, W, 3) uint8 BGR."""
    return _photo(name).copy()


def overlap(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of one box with each of the others, x, y, width, height."""
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[:2] + one[2:], others[:, :2] + others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return shared / (one[2] * one[3] + others[:, 2] * others[:, 3] - shared)
