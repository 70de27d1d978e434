"""Sees whether a new window's picture reaches the screen.

Qt 5 can miss the X server's word that its window is shown, when many events come at once and the machine is busy; the
window then stays blank for good. Opened anew, it is well.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATIENCE_S = 1.5  # until a window that shows nothing of its picture is opened anew
EVERY_S = 0.25  # between two looks at the screen
MOST_OPENED = 5  # windows, before it is believed that something else hides them
_SAME = 2  # grey levels
_OTHERWISE = ("WAYLAND_DISPLAY", "QT_SCALE_FACTOR", "QT_SCREEN_SCALE_FACTORS", "QT_AUTO_SCREEN_SCALE_FACTOR")
_SHARE = 0.8  # of the pixels; what lies in front may hide the others


def screen_grabber() -> Any | None:
    """What looks at an X screen, from `mss`; None where there is none, or where it could not be compared.

    Under Wayland it would see nothing; where Qt enlarges its windows, another size than they were given.
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in _OTHERWISE):
        return None
    try:
        import mss

        return mss.MSS() if hasattr(mss, "MSS") else mss.mss()
    except Exception:  # mss and the libraries below it raise whatever they like
        return None


class FirstLook:
    """Looks at a new window on the screen until its picture has been seen there, once.

    Args:
        grabber: what `mss` gives; None where there is no X screen to look at: nothing is looked at then.
        now: seconds of the monotonic clock.
    """

    def __init__(self, grabber: Any | None, now: float) -> None:
        self._grabber = grabber
        self._opened_at = now
        self._opened = 1
        self._next = now

    @property
    def done(self) -> bool:
        """Whether there is nothing more to look for."""
        return self._grabber is None

    def blank(self, picture: NDArray[np.uint8], left: int, top: int, now: float) -> bool:
        """Whether the window had better be opened anew: its picture should be on the screen for long, and is not.

        Args:
            picture: what the window was given last, (height, width, 3) uint8 BGR.
            left, top: where it is on the screen.
        """
        if self._grabber is None or now < self._next:
            return False
        self._next = now + EVERY_S
        height, width = picture.shape[:2]
        try:
            seen = np.asarray(self._grabber.grab({"left": left, "top": top, "width": width, "height": height}))
        except Exception:  # mss and the libraries below it raise whatever they like; most often: partly off the screen
            self.close()
            return False
        seen = seen[:, :, :3]
        if same(seen, picture) or (now - self._opened_at >= PATIENCE_S and not plain(seen)):
            self.close()  # or something else is in front of it
            return False
        if now - self._opened_at < PATIENCE_S:
            return False
        if self._opened == MOST_OPENED:
            self.close()
            return False
        self._opened, self._opened_at = self._opened + 1, now
        return True

    def close(self) -> None:
        """Look no more."""
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None


def plain(seen: NDArray[np.uint8]) -> bool:
    """Whether there is nothing to be seen in a picture, (height, width, 3) uint8."""
    return float(seen[::4, ::4].std(axis=(0, 1)).max()) <= _SAME


def same(seen: NDArray[np.uint8], picture: NDArray[np.uint8]) -> bool:
    """Whether most of one picture is in the other, both (height, width, 3) uint8."""
    if seen.shape != picture.shape:
        return False
    apart = np.abs(seen[::4, ::4].astype(np.int16) - picture[::4, ::4]).max(axis=2)
    return float((apart <= _SAME).mean()) >= _SHARE
