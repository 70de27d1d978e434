"""Pixels on the wire: raw or JPEG, checked before use."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common import jpeg
from common.messages import array_from


def decode(blob: Any, encoding: Literal["raw", "jpeg"], width: int, height: int) -> NDArray[np.uint8]:
    """Return the picture in a byte part: (height, width, 3) uint8 BGR; read-only when it was raw, for it is not copied.

    Raises:
        MessageError: the bytes are not a picture of that size.
    """
    if encoding == "raw":
        return array_from(blob, (height, width, 3), np.uint8, "pixels")
    return jpeg.decode(blob, width, height)
