"""JPEG in and out, and the size a JPEG claims before anybody trusts it with memory."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from common.messages import MAX_SIDE, MessageError

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def encode(picture: NDArray[np.uint8], quality: int) -> bytes:
    """Return a (height, width, 3) uint8 BGR picture as a JPEG of ``quality`` 0 to 100."""
    done, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape}")
    return data.tobytes()


def size(data: Any) -> tuple[int, int]:
    """Return (width, height) as the JPEG's own header says; its pixels are not looked at.

    Raises:
        MessageError: not a JPEG, cut short, or larger than ``MAX_SIDE``.
    """
    view = memoryview(data)
    if bytes(view[:2]) != b"\xff\xd8":
        raise MessageError("a JPEG was expected, something else came")
    at = 2
    while at + 4 <= len(view):
        if view[at] != 0xFF:
            raise MessageError("a damaged JPEG came")
        marker = view[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _START_OF_FRAME and at + 9 <= len(view):
            height, width = int.from_bytes(view[at + 5 : at + 7]), int.from_bytes(view[at + 7 : at + 9])
            if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
                raise MessageError(f"a JPEG of {width}×{height} came, at most {MAX_SIDE} a side are read")
            return width, height
        else:
            at += 2 + max(2, int.from_bytes(view[at + 2 : at + 4]))
    raise MessageError("a JPEG that is cut short came")


def expect(data: Any, width: int, height: int) -> None:
    """Check that a JPEG says to be of this size.

    Raises:
        MessageError: it is not a JPEG, or of another size.
    """
    found = size(data)
    if found != (width, height):
        raise MessageError(f"a JPEG of {width}×{height} was expected, one of {found[0]}×{found[1]} came")


def decode(data: Any, width: int, height: int) -> NDArray[np.uint8]:
    """Return the (height, width, 3) uint8 BGR pixels of a JPEG of exactly this size.

    Raises:
        MessageError: not a JPEG, of another size, or damaged.
    """
    expect(data, width, height)
    try:
        # Rotation tags are ignored: the boxes belong to the pixels as they are.
        pixels: NDArray[np.uint8] | None = cv2.imdecode(  # type: ignore[assignment]
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise MessageError(f"a damaged JPEG came ({error.err})") from error
    if pixels is None or pixels.shape != (height, width, 3):
        raise MessageError("a damaged JPEG came")
    return pixels
