"""A region of the screen."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from common.sources.base import Picture, SourceError, to_bgr
from common.sources.spec import DEFAULT_REGION, Region

FRAME_RATE = 30.0


class Screen:
    """A region of one monitor, clipped to it, at 30 pictures a second.

    Args:
        region: x, y, width, height in pixels from the monitor's upper left corner.
        monitor: its number, from 1.
    """

    live = True
    still = False
    may_stand_still = True
    frame_count: int | None = None

    def __init__(self, region: Region = DEFAULT_REGION, monitor: int = 1) -> None:
        self.region = region
        self.monitor = monitor
        x, y, width, height = region
        self.description = f"screen {width}×{height} at {x},{y}" + (f" of monitor {monitor}" if monitor != 1 else "")
        self.frame_rate: float | None = FRAME_RATE
        self._grabber: Any = None
        self._area: dict[str, int] = {}
        self._began_s: float | None = None
        self._due_s = 0.0

    def open(self) -> None:
        """Find the monitor. Raises SourceError: no screen, no such monitor, or the region is outside of it."""
        import mss

        self.close()
        try:
            grabber = mss.MSS() if hasattr(mss, "MSS") else mss.mss()
            monitors = grabber.monitors[1:]  # the first entry is all of them together
        except Exception as error:  # mss and the libraries below it raise whatever they like
            raise SourceError(f"the screen cannot be read: {error}{_no_screen_advice()}") from error
        if self.monitor > len(monitors):
            grabber.close()
            known = "; ".join(f"{number}: {m['width']}×{m['height']}" for number, m in enumerate(monitors, 1))
            raise SourceError(f"there is no monitor {self.monitor}; there are {known or 'none'}")
        monitor = monitors[self.monitor - 1]
        x, y, width, height = self.region
        width, height = min(width, monitor["width"] - x), min(height, monitor["height"] - y)
        if width <= 0 or height <= 0:
            grabber.close()
            raise SourceError(
                f"{self.description} lies outside of monitor {self.monitor}, "
                f"which is {monitor['width']}×{monitor['height']}: choose a region inside"
            )
        self._grabber = grabber
        self._area = {"left": monitor["left"] + x, "top": monitor["top"] + y, "width": width, "height": height}
        if self._began_s is None:
            self._began_s = time.monotonic()
        self._due_s = time.monotonic()

    def read(self) -> Picture | None:
        """The region as it is now, at the next thirtieth of a second; never None. Raises SourceError when lost."""
        if self._grabber is None or self._began_s is None:
            raise SourceError(f"{self.description} is not open")
        # A screen has no clock of its own: this is the pace itself, not a wait for something that could be asked.
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        now_s = time.monotonic()
        self._due_s = max(self._due_s + 1 / FRAME_RATE, now_s)
        try:
            shot = self._grabber.grab(self._area)
        except Exception as error:
            raise SourceError(f"{self.description} cannot be read any more: {error}") from error
        pixels = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return Picture(to_bgr(pixels), now_s - self._began_s)

    def close(self) -> None:
        """Let go of the screen."""
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None


def _no_screen_advice() -> str:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return " (DISPLAY is not set, so there is no X screen here; under Wayland, XWayland provides one)"
    if sys.platform == "darwin":
        return " (allow screen recording for this program in the system's privacy settings)"
    return ""
