"""Independent images: a folder of them, or a single file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.sources.base import Picture, Pixels, SourceError, to_bgr
from common.sources.opencv import cv2
from common.sources.spec import IMAGE_ENDINGS, NO_IMAGES

_CONVERT = "HEIC and GIF pictures cannot be read here; save them as JPEG or PNG"


class Folder:
    """The images of a folder in the order of their names, or one image; nothing carries over from one to the next.

    A damaged image is reported to ``notify`` and skipped. The media time is the image's running number.
    """

    live = False
    still = True
    may_stand_still = True
    frame_rate: float | None = None

    def __init__(
        self, place: str | Path, *, loop: bool = False, notify: Callable[[str], None] = lambda notice: None
    ) -> None:
        self.place = Path(place)
        self.loop = loop
        self.notify = notify
        self.description = str(place)
        self.frame_count: int | None = None
        self._files: list[Path] | None = None
        self._next = 0
        self._given = 0

    def open(self) -> None:
        """List the images. Raises SourceError: no such folder, not readable, or no image in it."""
        try:
            files = [self.place] if self.place.is_file() else sorted(self.place.iterdir(), key=lambda path: path.name)
        except OSError as error:
            raise SourceError(f"{self.description} cannot be read: {error.strerror or error}") from error
        found = [path for path in files if not path.name.startswith(".")]
        files = [path for path in found if path.suffix.lower() in IMAGE_ENDINGS and not path.is_dir()]
        left_out = [path.name for path in found if path.suffix.lower() in NO_IMAGES]
        if left_out and files:
            more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            self.notify(f"skipped: {left_out[0]}{more}: {_CONVERT}")
        if not files:
            if left_out:
                raise SourceError(f"{self.description}: {_CONVERT}")
            endings = ", ".join(sorted(IMAGE_ENDINGS))
            raise SourceError(f"{self.description} holds no image: files must end in one of {endings}")
        self._files = files
        self.frame_count = None if self.loop else len(files)
        self._next = self._given = 0

    def read(self) -> Picture | None:
        """The next image; None at the end. Raises SourceError when not one of them can be read."""
        if self._files is None:
            raise SourceError(f"{self.description} is not open")
        while True:
            if self._next == len(self._files):
                if not self._given:
                    raise SourceError(f"{self.description}: none of {len(self._files)} image files can be read")
                if not self.loop:
                    return None
                self._next = 0
            path = self._files[self._next]
            self._next += 1
            try:
                pixels = read_image(path)
            except SourceError as error:
                self.notify(f"skipped: {error}")
                continue
            self._given += 1
            name = os.fsencode(path.name).decode("utf-8", "backslashreplace")  # messages are UTF-8
            return Picture(pixels, float(self._given - 1), name)

    def close(self) -> None:
        """Forget the list."""
        self._files = None


def read_image(path: Path) -> Pixels:
    """An image file as (H, W, 3) uint8 BGR, turned upright by its EXIF orientation; grey, alpha, 16 bit converted.

    Raises SourceError: not readable, empty, damaged, too large, or not an image.
    """
    if path.exists() and not path.is_file():
        raise SourceError(f"{path} is no file")  # to read from a pipe could take for ever
    try:
        # Not cv2.imread, which cannot open every path on Windows.
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content.size:
        raise SourceError(f"{path} is empty (0 bytes)")
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{path} cannot be decoded: {error.err}") from error
    if pixels is None:
        raise SourceError(f"{path} is damaged, cut off, or not an image")
    try:
        return to_bgr(pixels)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
