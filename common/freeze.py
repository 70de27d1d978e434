"""Notices that a camera shows the same picture again and again."""

from __future__ import annotations

import zlib
from typing import Literal

from common.sources.base import Pixels


class FreezeWatch:
    """Watches one source; ``frozen_after_s`` None: never frozen.

    A sensor's noise never stands still, so equal pixels mean that somewhere on the way a buffer is repeated.
    """

    def __init__(self, frozen_after_s: float | None) -> None:
        self._frozen_after_s = frozen_after_s
        self._sample: int | None = None
        self._whole: int | None = None
        self._since_s = 0.0
        self._lost = False

    def restart(self, now_s: float) -> None:
        """The source was opened again: it has the full time again, but must show something else to be alive."""
        self._since_s = now_s

    def look(self, pixels: Pixels, now_s: float) -> Literal["alive", "frozen", "lost"]:
        """Look at the next picture.

        lost: the same for too long, open the source again; frozen: it was, and still shows that same picture.
        """
        if self._frozen_after_s is None:
            return "alive"
        sample = zlib.crc32(pixels[::8, ::8].tobytes())  # quick; the whole picture takes a hundred times that
        changed = sample != self._sample
        self._sample = sample
        if changed:
            self._whole = None
        else:
            whole = zlib.crc32(pixels.data)
            changed = self._whole is not None and whole != self._whole
            self._whole = whole
        if changed:
            self._since_s, self._lost = now_s, False
            return "alive"
        if now_s - self._since_s > self._frozen_after_s:
            self._lost = True
            return "lost"
        return "frozen" if self._lost else "alive"
