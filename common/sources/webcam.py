"""A webcam."""

from __future__ import annotations

import time

from common.sources.base import Picture, SourceError, to_bgr
from common.sources.opencv import cv2


class Webcam:
    """The webcam with this number; its media time is the monotonic clock since the first ``open``."""

    live = True
    still = False
    may_stand_still = False  # a sensor's noise never stands still
    frame_count: int | None = None

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.description = f"webcam {index}"
        self.frame_rate: float | None = None
        self._capture: cv2.VideoCapture | None = None
        self._began_s: float | None = None

    def open(self) -> None:
        """Open the device. Raises SourceError: not there, or in use by somebody else."""
        self.close()
        capture = cv2.VideoCapture(self.index)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{self.description} cannot be opened: is it plugged in, is it allowed to be used, "
                "and does no other program use it? Other cameras: webcam:1, webcam:2, …"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # fresh pictures, where the driver lets itself be told
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = float(rate) if 0 < rate <= 1000 else None
        self._capture = capture
        if self._began_s is None:
            self._began_s = time.monotonic()

    def read(self) -> Picture | None:
        """The next picture; never None. Raises SourceError when the device is lost."""
        if self._capture is None or self._began_s is None:
            raise SourceError(f"{self.description} is not open")
        got, pixels = self._capture.read()
        if not got or pixels is None:
            raise SourceError(f"{self.description} gives no pictures any more: unplugged?")
        return Picture(to_bgr(pixels), time.monotonic() - self._began_s)

    def close(self) -> None:
        """Close the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
