"""A video file: every container that OpenCV's FFmpeg reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.sources.base import Picture, SourceError, to_bgr
from common.sources.opencv import cv2


class Video:
    """A video file, read in order, turned upright, with each picture's own presentation time.

    Args:
        place: the file, or what finds it when the source is opened (the demo scenes are fetched or rendered first).
        loop: begin again at the end; media time keeps growing.
        notify: told when the file ends long before its announced end (damaged or cut off).
    """

    live = False
    still = False
    may_stand_still = True

    def __init__(
        self,
        place: str | Path | Callable[[], Path],
        *,
        loop: bool = False,
        notify: Callable[[str], None] = lambda notice: None,
        description: str | None = None,
    ) -> None:
        self._find = place if callable(place) else None
        self.place = "" if callable(place) else str(place)
        self.loop = loop
        self.notify = notify
        self.description = description or self.place
        self.frame_rate: float | None = None
        self.frame_count: int | None = None
        self._capture: cv2.VideoCapture | None = None
        self._announced = 0  # pictures in the file, by its own account
        self._read = 0  # pictures read in this round
        self._began_s = 0.0  # media time at which this round began
        self._first_s = 0.0  # presentation time of the file's first picture
        self._last_s: float | None = None  # media time of the last picture

    def open(self) -> None:
        """Open the file. Raises SourceError: missing, empty, unreadable, damaged or not a video."""
        self.close()
        if self._find:
            self.place = str(self._find())
        path = Path(self.place)
        try:
            with path.open("rb") as file:
                beginning = file.read(1)
        except OSError as error:
            raise SourceError(f"{self.description} cannot be read: {error.strerror or error}") from error
        if not beginning:
            raise SourceError(f"{self.description} is empty (0 bytes)")
        self._begin()
        self._last_s = None
        self._began_s = 0.0

    def _begin(self) -> None:
        # One decoding thread: a process computes on one thread, and more would only add delay and memory.
        # With its whole path: FFmpeg takes what stands before a colon for a protocol.
        capture = cv2.VideoCapture(str(Path(self.place).absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            raise SourceError(f"{self.description} is damaged, cut off, or not a video that FFmpeg can read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = float(rate) if 0 < rate <= 1000 else None
        self._announced = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.frame_count = None if self.loop else self._announced or None
        self._capture = capture
        self._read = 0

    def read(self) -> Picture | None:
        """The next picture; None at the end (never when looped). Raises SourceError: nothing can be decoded."""
        if self._capture is None:
            raise SourceError(f"{self.description} is not open")
        got, pixels = self._capture.read()
        if not got and self.loop and self._read:
            self._capture.release()
            self._began_s = (self._last_s or 0.0) + self._period_s
            self._begin()
            got, pixels = self._capture.read()
        if not got or pixels is None:
            if not self._read:
                raise SourceError(
                    f"{self.description} holds no picture that can be decoded: it is damaged or has no video"
                )
            # The count is an estimate in some containers, from the length, so that a small difference says nothing,
            # and nothing at all where the pictures that there are reach to the end.
            shown_s = (self._last_s or 0.0) - self._began_s + self._period_s
            few = self._read < self._announced - max(2, self._announced // 20)
            if few and shown_s < 0.95 * self._announced * self._period_s - 2 * self._period_s:
                count = f"{self._read} of {self._announced} pictures"
                self.notify(f"{self.description} ended after {count}: it is damaged or cut off")
            return None
        stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not self._read:
            self._first_s = stamp_s
        self._read += 1
        media_time_s = self._began_s + stamp_s - self._first_s
        if self._last_s is not None and media_time_s <= self._last_s:
            media_time_s = self._last_s + self._period_s  # no or broken presentation times
        self._last_s = media_time_s
        return Picture(to_bgr(pixels), media_time_s)

    @property
    def _period_s(self) -> float:
        return 1 / (self.frame_rate or 25.0)

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
