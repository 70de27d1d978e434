"""A network camera: RTSP, or HTTP with MJPEG or another live stream."""

from __future__ import annotations

import os
import threading
import time

from common.sources.base import Picture, SourceError, to_bgr
from common.sources.opencv import cv2
from common.sources.spec import parse_source

OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 2000  # silence for as long is a lost stream

# RTSP over TCP: UDP loses packets, and a face made of smeared blocks is worse than a late one. As little buffering as
# possible. OpenCV takes these from the environment only, for the whole process; hence the lock around opening.
_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_opening = threading.Lock()


class Stream:
    """The stream at a URL; its media time is the monotonic clock since the first ``open``.

    Args:
        url: rtsp, rtsps, http or https; may hold user and password, which are shown nowhere.
        description: for people. Default: the URL without its secrets.
    """

    live = True
    still = False
    may_stand_still = False
    frame_count: int | None = None

    def __init__(self, url: str, description: str | None = None) -> None:
        self._url = url
        self.description = description or parse_source(url).description
        self.frame_rate: float | None = None
        self._capture: cv2.VideoCapture | None = None
        self._began_s: float | None = None

    def open(self) -> None:
        """Connect, for at most 5 s. Raises SourceError: not reachable, refused, or not a video."""
        self.close()
        parameters = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            READ_TIMEOUT_MS,
            cv2.CAP_PROP_N_THREADS,
            1,  # frame threads would hold pictures back
        ]
        with _opening:
            given = os.environ.get(_VARIABLE)
            if given is None:
                os.environ[_VARIABLE] = _OPTIONS
            try:
                capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, parameters)
            finally:
                if given is None:
                    del os.environ[_VARIABLE]
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{self.description} cannot be opened: is the camera on and reachable from here, "
                "are path, user and password right, and does it send video?"
            )
        # Over rtsp, what has a length (a recorder's playback) comes in its own time all the same.
        if self._url.lower().startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
            capture.release()
            raise SourceError(
                f"{self.description} is a video, not a live camera: it would be read as fast as the network can; "
                "download it and give its path"
            )
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = float(rate) if 0 < rate <= 240 else None
        self._capture = capture
        if self._began_s is None:
            self._began_s = time.monotonic()

    def read(self) -> Picture | None:
        """The next picture; never None. Raises SourceError when the stream ended or was silent for 2 s."""
        if self._capture is None or self._began_s is None:
            raise SourceError(f"{self.description} is not open")
        got, pixels = self._capture.read()
        if not got or pixels is None:
            raise SourceError(f"{self.description} gives no pictures any more: the connection is lost or silent")
        return Picture(to_bgr(pixels), time.monotonic() - self._began_s)

    def close(self) -> None:
        """Close the connection."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
