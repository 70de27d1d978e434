"""Track ids that are never used twice: not after a restart, and not by two conductors that share a store."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from pathlib import Path

from common.store import Store

RESERVED = 1000  # ids taken from the store at once; a crash wastes at most so many
LOW = 500  # … and more are asked for when no more than this are left
FILE = "tracks.next"  # where earlier versions kept the number; ids go on from there
_SETTING = "next_track"

log = logging.getLogger(__name__)


def reserve(store: Store) -> range:
    """Return ids that nobody else will give. Raises StoreError: the store cannot be written."""
    with store.write() as connection:
        first = max(int(store.setting_in(connection, _SETTING) or b"1"), _earlier(store.place.data_dir / FILE))
        store.set_setting(connection, _SETTING, str(first + RESERVED).encode())
    return range(first, first + RESERVED)


class TrackIds:
    """Gives ids of those that were reserved. Pure: whoever owns it sees to it that there are always some.

    When there are none, because the store cannot be reached for long, an id is the present time in milliseconds, then
    three digits of the process, which nobody else gives; that is said once.
    """

    def __init__(self) -> None:
        self._blocks: deque[range] = deque()
        self._last_ms = 0  # of an id that was given without the store

    def add(self, block: range) -> None:
        """Take ids that were reserved for this process."""
        self._blocks.append(block)

    @property
    def low(self) -> bool:
        """Whether more should be reserved."""
        return sum(map(len, self._blocks)) <= LOW

    def __call__(self) -> int:
        """Return the next id."""
        while self._blocks and not self._blocks[0]:
            self._blocks.popleft()
        if not self._blocks:
            if not self._last_ms:
                log.warning("the store has given no track ids for too long: they are the present time meanwhile")
            self._last_ms = max(self._last_ms + 1, int(time.time() * 1000))
            return self._last_ms * 1000 + os.getpid() % 1000
        block = self._blocks[0]
        self._blocks[0] = block[1:]
        return block[0]


def _earlier(path: Path) -> int:
    try:
        return max(1, int(path.read_text(encoding="ascii")))
    except FileNotFoundError:
        return 1
    except (OSError, ValueError) as error:
        log.warning("%s cannot be used (%s): track ids go on from the store's number", path, error)
        return 1
