"""From a picture to the aligned 150×150 chip that the identity network wants, in two steps in two processes.

The detection worker cuts a patch (`cut_patch`), small enough to travel; the identity worker aligns it (`Aligner`).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models import files
from models.dlib_weights import CHIP_SIZE
from models.runtime import ModelError, check

PATCH_LONG_SIDE = (
    256  # pixels; a chip is a little over half a patch's side, so that this keeps about the chip's own resolution
)
CHIP_PADDING = 0.25  # what face_recognition uses; dlib's embeddings were trained with it

# dlib's landmark predictor was trained on the squares of dlib's own face detector (brows to chin), lower and wider
# than a detector's box (forehead to chin). Fitted to dlib's detector on the sample photos: side in parts of sqrt(width
# · height), shift in parts of height.
_SQUARE_SIDE = 0.92
_SQUARE_SHIFT = 0.055
# The chip is about 0.93 of the box's height wide and may be turned by 45 degrees: 1.6 holds it with room for a badly
# placed box.
_PATCH_SIDE = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """The surroundings of one face, as they travel to an identity worker."""

    pixels: NDArray[np.uint8]  # (p, q, 3) uint8 BGR, contiguous, longer side at most 256
    box: NDArray[
        np.float32
    ]  # (4,) float32: x, y, width, height in pixels of the patch; may reach beyond it by a cut face

    def __post_init__(self) -> None:
        pixels, box = self.pixels, self.box
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(
                f"a patch must be BGR, uint8 of shape (height, width, 3), got {pixels.dtype} of shape {pixels.shape}"
            )
        if box.shape != (4,) or not np.all(np.isfinite(box)) or box[2] <= 0 or box[3] <= 0:
            raise ValueError(f"a patch's box must be x, y, width, height with a positive size, got {box}")


def cut_patch(picture: NDArray[np.uint8], box: ArrayLike) -> Patch:
    """The square around `box` (x, y, width, height in pixels) that holds the chip of this face at any tilt, clipped to
    the picture.

    `picture` is (H, W, 3) uint8 BGR. The pixels are always a copy, never larger than 256 on their longer side.
    Raises ValueError when the box has no size or lies outside the picture.
    """
    x, y, width, height = (float(value) for value in np.asarray(box, np.float32))
    if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
        raise ValueError(f"a box must be finite and have a size, got {x}, {y}, {width} × {height}")
    half = _PATCH_SIDE * max(width, height) / 2
    center_x, center_y = x + width / 2, y + height * (0.5 + _SQUARE_SHIFT)
    left, right = max(0, int(center_x - half)), min(picture.shape[1], int(np.ceil(center_x + half)))
    top, bottom = max(0, int(center_y - half)), min(picture.shape[0], int(np.ceil(center_y + half)))
    if left >= right or top >= bottom:
        raise ValueError(
            f"the box at {x:.1f}, {y:.1f} lies outside the picture of {picture.shape[1]} × {picture.shape[0]}"
        )
    pixels = _shrunk(picture[top:bottom, left:right])
    scale = np.array([pixels.shape[1] / (right - left), pixels.shape[0] / (bottom - top)] * 2, np.float32)
    return Patch(pixels=pixels, box=np.array([x - left, y - top, width, height], np.float32) * scale)


def _shrunk(cut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of the cut, its longer side at most PATCH_LONG_SIDE."""
    # Averaging 2 × 2 pixels is many times quicker than averaging areas of any other size, and for less than half,
    # bilinear will do.
    while max(cut.shape[:2]) >= 2 * PATCH_LONG_SIDE and min(cut.shape[:2]) > 1:
        even = cut[: cut.shape[0] // 2 * 2, : cut.shape[1] // 2 * 2]
        cut = np.asarray(cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    longest = max(cut.shape[:2])
    if longest <= PATCH_LONG_SIDE:
        return cut.copy()
    width, height = (max(1, round(side * PATCH_LONG_SIDE / longest)) for side in (cut.shape[1], cut.shape[0]))
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


class Aligner:
    """Finds five landmarks with dlib's predictor and cuts the chip, as the package face_recognition does.

    Raises ModelError when the predictor's file is missing or damaged.
    """

    def __init__(self, model: Path | None = None) -> None:
        import dlib  # here, so that detection workers, which only cut patches, do without it

        self._dlib: Any = dlib
        path = files.face_landmarks() if model is None else model
        check(path)
        try:
            self._predictor = dlib.shape_predictor(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the model file {path} cannot be read ({reason}): install face_recognition_models==0.3.0 again"
            ) from error

    def chip(self, patch: Patch) -> NDArray[np.uint8]:
        """The face upright and centred: (150, 150, 3) uint8 RGB; black where the patch has no pixels."""
        pixels = cv2.cvtColor(patch.pixels, cv2.COLOR_BGR2RGB)
        x, y, width, height = (float(value) for value in patch.box)
        half = _SQUARE_SIDE * np.sqrt(width * height) / 2
        center_x, center_y = x + width / 2, y + height * (0.5 + _SQUARE_SHIFT)
        square = self._dlib.rectangle(
            round(center_x - half), round(center_y - half), round(center_x + half) - 1, round(center_y + half) - 1
        )
        shape = self._predictor(pixels, square)
        chip: NDArray[np.uint8] = self._dlib.get_face_chip(pixels, shape, size=CHIP_SIZE, padding=CHIP_PADDING)
        return chip
