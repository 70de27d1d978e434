"""Photographs from anywhere, read carefully: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC; any colour mode; turned upright."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # a picture that claims more is not unpacked
MAX_BYTES = 200 * 1024 * 1024
WORKING_SIDE = 2400  # pixels; larger ones are made smaller, which no face large enough to enrol minds
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"}
)


class PhotoError(ValueError):
    """A file that cannot be used as a photograph; the text says why."""


def read(path: Path) -> NDArray[np.uint8]:
    """Return a photograph upright, (H, W, 3) uint8 BGR, its longer side at most 2400 pixels; of a film the first frame.

    Raises:
        PhotoError: no picture, damaged, too large, or not to be read.
    """
    _heic(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PhotoError(f"the file has {size >> 20} MB, at most {MAX_BYTES >> 20} MB are read")
        with warnings.catch_warnings():
            # Pillow warns of pictures that may be bombs; the size it was told is checked here before anything is
            # unpacked, and its remarks about odd metadata help nobody.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise PhotoError(
                        f"it claims {width}×{height} pixels, at most {MAX_PIXELS // 10**6} million are read"
                    )
                picture.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # JPEG: unpack no more than is needed
                # Shrunk first: turning and converting 100 million pixels would take four times the memory.
                picture.thumbnail((WORKING_SIDE, WORKING_SIDE))
                return _bgr(ImageOps.exif_transpose(picture))
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(f"it claims more than {MAX_PIXELS // 10**6} million pixels: it is not unpacked") from error
    except (UnidentifiedImageError, NotImplementedError) as error:
        raise PhotoError("it is no picture, or of a kind that cannot be read") from error
    except PermissionError as error:
        raise PhotoError("there is no right to read it") from error
    except Exception as error:  # there are dozens of decoders, each with errors of its own for damaged files
        raise PhotoError(f"it is damaged: {error}") from error


def _bgr(picture: Any) -> NDArray[np.uint8]:
    if picture.mode.startswith(("I", "F")):  # 16 bits and more a pixel
        deep = np.asarray(picture, np.float32)
        low, high = float(np.nanmin(deep)), float(np.nanmax(deep))
        scaled = np.nan_to_num((deep - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(scaled[..., None], 3, axis=2))
    if picture.mode in ("RGBA", "LA", "PA", "P"):
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(ground, picture)
    rgb = np.asarray(picture.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _heic(path: Path) -> None:
    if path.suffix.lower() not in (".heic", ".heif"):
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise PhotoError("HEIC pictures need the package pillow-heif (pip install pillow-heif)") from error
    register_heif_opener()
