"""Raw pictures in memory that the processes of one machine share: written once, read where they are needed.

A ring is a mapped file of equal slots with a header of two numbers a slot: the generation of the picture in it, and
whether the conductor still holds it. The camera writes into a slot that is free and says which in its message; readers
look at the picture where it is, and see by the generation, afterwards, whether it was that picture all the time.
Where there is no free slot, no memory, or no common machine, the bytes travel in the message as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import secrets
import shutil
import stat
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.messages import RING_SLOTS, MessageError, Slot
from common.settings import Config

log = logging.getLogger(__name__)

MOST_BYTES: Final = 160 * 1024 * 1024  # of a ring: six pictures of 3840 × 2160
FEWEST_SLOTS: Final = 4  # with fewer, most are held by somebody: pictures that large travel in messages
HELD_AT_MOST_S: Final = 3.0  # a conductor that died releases nothing
_HEADER: Final = 4096
_GENERATION, _HELD = 0, 1
_TOKEN_BYTES: Final = 8


def slots_for(picture_bytes: int) -> int:
    """Return how many pictures of that size a ring holds; 0: they travel in messages."""
    slots = min(RING_SLOTS, (MOST_BYTES - _HEADER) // _slot_bytes(picture_bytes))
    return slots if slots >= FEWEST_SLOTS else 0


def ring_dir(config: Config) -> Path | None:
    """Return where the rings of a run are, or None where its pictures must travel in messages."""
    endpoints = (config.endpoint(channel) for channel in ("frames", "jobs", "pictures"))
    if not config.shared_memory or config.every_frame or not all(address.startswith("ipc://") for address in endpoints):
        return None
    if not sys.platform.startswith("linux"):
        return config.run_dir / "rings"
    run = hashlib.sha256(os.fsencode(config.run_dir.absolute())).hexdigest()[:16]
    return Path("/dev/shm") / f"mien-{os.getuid()}-{run}"


def remove_rings(config: Config) -> None:
    """Remove what a run has left. Whoever has a ring mapped can go on reading it."""
    directory = ring_dir(config)
    if directory is not None and _is_ours(directory):
        shutil.rmtree(directory, ignore_errors=True)


class RingWriter:
    """The rings of one camera: one at a time, another when the size of its pictures changes."""

    def __init__(self, config: Config, camera: str) -> None:
        self._directory = ring_dir(config)
        self._camera = camera
        self._ring: _Ring | None = None
        self._written_at = [0.0] * RING_SLOTS
        self._next = 0
        self._generation = 0

    def put(self, pixels: NDArray[np.uint8]) -> Slot | None:
        """Write a picture, (H, W, 3) uint8; return where it is, or None: send it as bytes."""
        if self._directory is None:
            return None
        if self._ring is None or self._ring.picture_bytes != pixels.nbytes:
            self._make(pixels.nbytes)
        ring = self._ring
        if ring is None:
            return None
        now = time.monotonic()
        for step in range(ring.slots):
            number = (self._next + step) % ring.slots
            if not ring.header[number, _HELD] or now - self._written_at[number] > HELD_AT_MOST_S:
                break
        else:
            return None
        self._next = (number + 1) % ring.slots
        self._generation += 1
        ring.header[number] = (0, 0)  # whoever still looks at it sees that it is gone
        ring.slot(number)[:] = pixels.reshape(-1)
        ring.header[number, _GENERATION] = self._generation
        self._written_at[number] = now
        return Slot(ring=ring.path.name, number=number, generation=self._generation)

    def close(self) -> None:
        if self._ring is not None:
            self._ring.path.unlink(missing_ok=True)
            self._ring = None

    def _make(self, picture_bytes: int) -> None:
        assert self._directory is not None
        self.close()
        if not slots_for(picture_bytes):
            return
        # Never a name that was there before: readers know rings by their names.
        path = self._directory / f"{self._camera}-{secrets.token_hex(_TOKEN_BYTES)}"
        try:
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir(mode=0o700, parents=True)
            if not _is_ours(self._directory):
                raise PermissionError(f"{self._directory} is not a directory of this user alone")
            for left in self._directory.iterdir():  # by a process that was killed; a camera has one at a time
                if left.name[: -2 * _TOKEN_BYTES - 1] == self._camera:
                    left.unlink(missing_ok=True)
            with path.open("xb+") as file:
                # All of it now: memory that runs out while a picture is written would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, _size(picture_bytes))
                else:
                    file.truncate(_size(picture_bytes))
            self._ring = _Ring(path, picture_bytes)
        except OSError as error:
            log.warning("no shared memory for %s (%s): its pictures travel in messages", self._camera, error)
            path.unlink(missing_ok=True)
            self._directory = None


class RingReader:
    """Reads pictures where cameras wrote them."""

    def __init__(self, config: Config) -> None:
        self._directory = ring_dir(config)
        self._rings: OrderedDict[tuple[str, int], _Ring] = OrderedDict()
        self._most = 2 * len(config.cameras)  # each camera's, and that of its last run

    def picture(self, slot: Slot, width: int, height: int) -> NDArray[np.uint8]:
        """Return a view, (H, W, 3) uint8. What was made of it counts only if ``check`` passes afterwards.

        Raises:
            MessageError: the picture is not there, or not any more.
        """
        ring = self._open(slot, width * height * 3)
        self.check(slot, width, height)
        view = ring.slot(slot.number).reshape(height, width, 3)
        view.flags.writeable = False
        return view

    def check(self, slot: Slot, width: int, height: int) -> None:
        """Raise MessageError when another picture has been written over this one."""
        if int(self._open(slot, width * height * 3).header[slot.number, _GENERATION]) != slot.generation:
            raise MessageError(f"picture {slot.generation} of {slot.ring} has been overwritten: it was read too late")

    def hold(self, slot: Slot, width: int, height: int) -> Held:
        """Keep a picture from being overwritten until the returned object is gone. Errors as ``picture``."""
        ring = self._open(slot, width * height * 3)
        self.check(slot, width, height)
        ring.header[slot.number, _HELD] = 1
        return Held(ring, slot)

    def _open(self, slot: Slot, picture_bytes: int) -> _Ring:
        key = (slot.ring, picture_bytes)
        ring = self._rings.get(key)
        if ring is None:
            if self._directory is None:
                raise MessageError(f"a picture in shared memory ({slot.ring}) came, and this run shares none")
            try:
                ring = self._rings[key] = _Ring(self._directory / slot.ring, picture_bytes)
            except (OSError, ValueError) as error:
                raise MessageError(f"the shared memory {slot.ring} cannot be read: {error}") from error
            while len(self._rings) > self._most:
                self._rings.popitem(last=False)
        self._rings.move_to_end(key)
        if slot.number >= ring.slots:
            raise MessageError(f"the shared memory {slot.ring} has {ring.slots} pictures, no number {slot.number}")
        return ring


class Held:
    """A picture that is kept for its reader until this object is gone."""

    __slots__ = ("_ring", "slot")

    def __init__(self, ring: _Ring, slot: Slot) -> None:
        self._ring = ring
        self.slot = slot

    def picture(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return a view of it, (H, W, 3) uint8."""
        return self._ring.slot(self.slot.number).reshape(height, width, 3)

    def __del__(self) -> None:
        header = self._ring.header
        if int(header[self.slot.number, _GENERATION]) == self.slot.generation:
            header[self.slot.number, _HELD] = 0


class _Ring:
    """A mapped ring.

    Attributes:
        slots: how many pictures it holds.
        header: (slots, 2) uint64: generation, held.
    """

    def __init__(self, path: Path, picture_bytes: int) -> None:
        self.path = path
        self.picture_bytes = picture_bytes
        self.slots = slots_for(picture_bytes)
        with path.open("rb+") as file:
            size = os.fstat(file.fileno()).st_size
            if size != _size(picture_bytes):
                raise ValueError(f"it has {size} bytes, {_size(picture_bytes)} were expected")
            self._map = mmap.mmap(file.fileno(), size)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.header = self._bytes[: self.slots * 16].view(np.uint64).reshape(self.slots, 2)

    def slot(self, number: int) -> NDArray[np.uint8]:
        begin = _HEADER + number * _slot_bytes(self.picture_bytes)
        return self._bytes[begin : begin + self.picture_bytes]


def _slot_bytes(picture_bytes: int) -> int:
    return -(-picture_bytes // 4096) * 4096


def _size(picture_bytes: int) -> int:
    return _HEADER + slots_for(picture_bytes) * _slot_bytes(picture_bytes)


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    return os.name != "posix" or (found.st_uid == os.geteuid() and not found.st_mode & 0o077)
