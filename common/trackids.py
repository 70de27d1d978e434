"""Track ids that are never used twice, not after a restart either."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

RESERVED = 1000  # ids taken from the file at once; a crash wastes at most so many

log = logging.getLogger(__name__)


class TrackIds:
    """Counts up from where the last run ended, as a file in the data directory remembers.

    Where the file cannot be read or written, ids begin at the present time in milliseconds, which no run before has
    reached; that is said once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = self._reserved = self._read()

    def __call__(self) -> int:
        """Return the next id."""
        if self._next >= self._reserved:
            self._reserve()
        self._next += 1
        return self._next - 1

    def _read(self) -> int:
        try:
            return max(1, int(self._path.read_text(encoding="ascii")))
        except FileNotFoundError:
            return 1
        except (OSError, ValueError) as error:
            return self._fall_back(error)

    def _reserve(self) -> None:
        self._reserved = self._next + RESERVED
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(str(self._reserved), encoding="ascii")
            os.replace(temporary, self._path)
        except OSError as error:
            if self._next < 1_000_000_000_000:
                self._next = self._fall_back(error)
            self._reserved = self._next + RESERVED

    def _fall_back(self, error: Exception) -> int:
        log.warning("%s cannot be used (%s): track ids begin at the present time", self._path, error)
        return int(time.time() * 1000)
