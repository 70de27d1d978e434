"""Pictures to an H.264 file that browsers play, through the ffmpeg that ``imageio-ffmpeg`` carries."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

STILLS_RATE = 1.0  # pictures a second, of a folder's
_LONGEST_GAP_S = 10.0  # in the source's times; more is a broken clock, which no film should wait for
_SILENT_S = 60.0  # so long ffmpeg may change nothing of the file before it is given up
_LOOK_EVERY_S = 0.25


class EncoderError(Exception):
    """A video that cannot be written; the text says why."""


class VideoEncoder:
    """Writes one video, of constant frame rate and of the size of its first picture.

    Where the source's own times leave a gap, the picture before it is shown for longer. An encoder that was not
    closed still leaves a playable file: ffmpeg ends it when this process is gone.

    Args:
        path: file to write, ``.mp4``.
        rate: pictures a second.
        least_side: pixels of the longer side, to which a smaller first picture is enlarged.
    """

    def __init__(self, path: Path, rate: float, *, least_side: int = 1) -> None:
        self.path = path
        self.rate = rate
        self._least_side = least_side
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._size = (0, 0)
        self._written = 0
        self._last: NDArray[np.uint8] | None = None
        self._began_s = 0.0

    def write(self, picture: NDArray[np.uint8], media_time_s: float) -> None:
        """Append a picture, (height, width, 3) uint8 BGR, of any size. Raises EncoderError: disk full and the like."""
        if self._process is None:
            scale = max(1.0, self._least_side / max(picture.shape[:2]))
            self._start(max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            self._began_s = media_time_s
        fitted = _fitted(picture, self._size)
        missing = round((media_time_s - self._began_s) * self.rate) - self._written
        if self._last is not None and missing > 0:
            if missing > _LONGEST_GAP_S * self.rate:  # left out, and what comes after it follows at once
                self._began_s += missing / self.rate
                missing = 0
            for _ in range(missing):
                self._put(self._last)
        self._put(fitted)
        self._last = fitted

    def close(self) -> None:
        """End the file. Raises EncoderError when it could not be written to its end; closing twice does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended before; its exit code tells
            process.stdin.close()
        ended = self._ended(process)
        reason = self._reason()
        if not ended:
            reason = f"ffmpeg has written nothing for {_SILENT_S:g} s"
        if not ended or process.returncode != 0:
            raise EncoderError(f"{self.path} cannot be written: {reason}")

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for ffmpeg to end, and for as long as it still writes; return whether it did by itself.

        What comes first in the file is known last: it writes the whole file once more at the end, which of a long film
        takes minutes.
        """
        seen, since = self._state(), time.monotonic()
        while True:
            try:
                process.wait(_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                pass
            else:
                return True
            now = self._state()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= _SILENT_S:
                process.kill()
                process.wait()
                return False

    def _state(self) -> tuple[int, int] | None:
        """Return what of the file changes when it is written to."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _start(self, width: int, height: int) -> None:
        self._size = (width, height)
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24",
            "-s", f"{width}x{height}", "-r", f"{self.rate:.6f}", "-i", "-", "-an",
            # H.264 with the colours that all players know has even sides.
            "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20",
            "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(self.path),
        ]  # fmt: skip
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _reason
        # A group of its own: Ctrl-C must reach this program only, which then ends the file properly.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def _put(self, picture: NDArray[np.uint8]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(picture.data)
        except OSError:  # it has ended, or is about to: its last words say why
            self.close()
            raise EncoderError(f"{self.path} cannot be written: ffmpeg ended too early") from None
        self._written += 1

    def _reason(self) -> str:
        """Return ffmpeg's last words."""
        assert self._complaints is not None
        with self._complaints as file:
            file.seek(0)
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "ffmpeg ended without a word")


def _fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the picture in a size (width, height): shrunk or enlarged as a whole, with black borders."""
    width, height = size
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    scale = min(width / picture.shape[1], height / picture.shape[0])
    wide = min(width, max(1, round(picture.shape[1] * scale)))
    high = min(height, max(1, round(picture.shape[0] * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - wide) // 2, (height - high) // 2
    canvas[top : top + high, left : left + wide] = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA)
    return canvas
