"""What every source of pictures has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.messages import MAX_SIDE

Pixels = NDArray[np.uint8]  # (H, W, 3) BGR, contiguous
MOST_PIXELS = 85_000_000  # of a picture: raw, it still fits a message


class SourceError(Exception):
    """A source that is wrong, cannot be opened or was lost: which, why, and what to do. Never contains credentials."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture from a source.

    Attributes:
        pixels: (H, W, 3) uint8, BGR, contiguous.
        media_time_s: seconds since the source's beginning by its own clock: presentation time in files (it keeps
            growing when a clip is looped), the monotonic clock for live sources, the running number for images.
        name: the file's name, for images.
    """

    pixels: Pixels
    media_time_s: float
    name: str | None = None


class Source(Protocol):
    """A source of pictures. One thread opens, reads and closes it; ``open`` works again after ``close``.

    Attributes:
        description: for people; without credentials.
        live: a device or stream that gives pictures in its own time; the others must be paced.
        still: independent images; nothing carries over from one to the next.
        may_stand_still: the same picture for long is no sign of a lost source.
        frame_rate: pictures a second, where known (after ``open``).
        frame_count: None: endless or unknown.
    """

    description: str
    live: bool
    still: bool
    may_stand_still: bool
    frame_rate: float | None
    frame_count: int | None

    def open(self) -> None:
        """Open it. Raises SourceError. May block for as long as the device or network takes."""

    def read(self) -> Picture | None:
        """The next picture, or None at the end. Raises SourceError when the source is lost. May block."""

    def close(self) -> None:
        """Close it; closing twice does nothing."""


def to_bgr(pixels: NDArray[Any]) -> Pixels:
    """Bring grey (H, W) or (H, W, 1), BGRA (H, W, 4), or 16-bit pixels to (H, W, 3) uint8 BGR, contiguous.

    Alpha is dropped; 16-bit values keep their high byte. Raises SourceError for any other shape or type, and for what
    is too large.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels // np.uint16(256)).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise SourceError(f"pixels of shape {pixels.shape} and type {pixels.dtype} are not a picture")
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE or height * width > MOST_PIXELS:
        raise SourceError(
            f"a picture of {width} × {height} is too large: at most {MAX_SIDE} pixels a side and "
            f"{MOST_PIXELS // 1_000_000} megapixels; make it smaller"
        )
    bgr: Pixels = np.ascontiguousarray(pixels[:, :, :3])
    return bgr
