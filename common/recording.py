"""The file of a recording: what the conductor was told and what it decided, entry after entry. Only ever appended to.

Eight bytes that say what it is, then blocks: three little-endian words of 32 bits (length, CRC-32 of the content,
CRC-32 of these two), then the content. The first block is the head, a msgpack map; the others are entries, msgpack
values one after the other, deflated, and sealed with the store's key where the head says so. An empty block is the end:
where it is missing the recording was cut off, and what is there is still good.
"""

from __future__ import annotations

import os
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgpack
from filelock import FileLock, Timeout

from common.encryption import Cipher, KeyProblem

MAGIC = b"MIEN-REC"
VERSION = 1
FOLDER = "recordings"  # in the data directory: those that Mien keeps
SUFFIX = ".mien-recording"
MOST_BLOCK = 64 * 1024 * 1024  # bytes of entries in one block, deflated or not
_HEAD = struct.Struct("<III")


class RecordingError(Exception):
    """A recording that cannot be made or read; the text says which, why and what to do."""


class EmptyRecording(RecordingError):
    """It was cut off before its first entry."""


class Writer:
    """Makes a recording.

    Args:
        cipher: seals what is written; None: nothing in it says who somebody is.

    Raises:
        RecordingError: there is such a file already, or it cannot be made.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        self.path = path
        self._cipher = cipher
        self._id = uuid.uuid4().hex
        self._blocks = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody else's business: names and looks of people are in it.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            raise RecordingError(f"{path} is there already: choose another name, or remove it") from None
        except OSError as error:
            raise RecordingError(f"{path} cannot be made: {error.strerror or error}") from error
        self._file: BinaryIO = os.fdopen(handle, "wb", buffering=0)
        self._lock = _lock(path)
        self._lock.acquire()
        head = {"version": VERSION, "id": self._id, "sealed": cipher is not None, "made_at": time.time()}
        try:
            self._write(MAGIC + _framed(msgpack.packb(head)))
        except RecordingError:
            self.close(whole=False)
            path.unlink(missing_ok=True)  # nothing is in it, and nobody could say so later
            raise

    def add(self, entries: bytes) -> None:
        """Append packed entries as a block.

        Raises:
            RecordingError: they are more than is read again; the disk is full, or gone.
        """
        if len(entries) > MOST_BLOCK:
            raise RecordingError(f"{self.path}: a block of {len(entries)} bytes could not be read again")
        content = zlib.compress(entries, 1)
        self._blocks += 1
        if self._cipher is not None:
            content = self._cipher.seal(content, _about(self._id, self._blocks))
        self._write(_framed(content))

    def close(self, *, whole: bool = True) -> None:
        """Close it; ``whole``: say in it that this is its end."""
        if not self._file.closed:
            try:
                if whole:
                    self._write(_framed(b""))
            finally:
                self._file.close()
                Path(self._lock.lock_file).unlink(missing_ok=True)
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(whole=kind is None)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written: {error.strerror or error}") from error


def being_made(path: Path) -> bool:
    """Whether somebody is writing this recording now."""
    lock = _lock(path)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _lock(path: Path) -> FileLock:
    return FileLock(f"{path}.lock")


class Recording:
    """Reads a recording.

    Args:
        cipher: gives what opens a sealed one; asked only when it is.

    Attributes:
        sealed: it is encrypted.
        whole: it has its end; known once everything was read.

    Raises:
        RecordingError: it is no recording, damaged at its beginning, or a newer Mien's.
    """

    def __init__(self, path: Path, cipher: Callable[[], Cipher]) -> None:
        self.path = path
        self.whole = False
        self._cipher: Cipher | None = None
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            magic = self._file.read(len(MAGIC))
            if magic != MAGIC and MAGIC.startswith(magic):
                raise self._empty()
            if magic != MAGIC:
                raise RecordingError(f"{path} is not a recording of Mien's")
            head = self._head()
            self.sealed = bool(head.get("sealed"))
            self._id = str(head.get("id"))
            if self.sealed:
                try:
                    self._cipher = cipher()
                except KeyProblem as error:
                    raise RecordingError(f"{path} is encrypted: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def blocks(self) -> Iterator[bytes]:
        """Yield the packed entries of each block. Raises RecordingError: damaged, or sealed with another key."""
        number = 0
        while (content := self._block()) is not None:
            if not content:
                self.whole = True
                if self._file.read(1):
                    raise RecordingError(f"{self.path} is damaged: it goes on after its end")
                return
            number += 1
            if self._cipher is not None:
                try:
                    content = self._cipher.open(content, _about(self._id, number))
                except KeyProblem as error:
                    raise RecordingError(f"{self.path}: block {number} does not open: {error}") from error
            try:
                inflate = zlib.decompressobj()
                entries = inflate.decompress(content, MOST_BLOCK)
            except zlib.error as error:
                raise self._damaged(f"block {number}: {error}") from error
            if inflate.unconsumed_tail:
                raise self._damaged(f"block {number} is larger than any that Mien writes")
            yield entries

    def entries(self) -> Iterator[Any]:
        """Yield the entries. Raises RecordingError as ``blocks``."""
        for block in self.blocks():
            reader = msgpack.Unpacker(None, raw=False, use_list=True, strict_map_key=True, max_buffer_size=MOST_BLOCK)
            reader.feed(block)
            try:
                yield from reader
            except (ValueError, msgpack.exceptions.UnpackException) as error:
                raise self._damaged(str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _empty(self) -> EmptyRecording:
        return EmptyRecording(f"{self.path} was cut off before its first entry: there is nothing in it")

    def _head(self) -> dict[str, Any]:
        content = self._block()
        if content is None:
            raise self._empty()
        try:
            head: Any = msgpack.unpackb(content)
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            raise self._damaged(f"its head is not readable ({error})") from error
        version = head.get("version") if isinstance(head, dict) else None
        if not isinstance(version, int):
            raise self._damaged("its head says no version")
        if version > VERSION:
            raise RecordingError(
                f"{self.path} was made by a newer Mien (format {version}, this one reads up to {VERSION}): "
                "replay it with that one"
            )
        return dict(head)

    def _block(self) -> bytes | None:
        """Return the content of the next block, None where the file breaks off."""
        frame = self._file.read(_HEAD.size)
        if len(frame) < _HEAD.size:
            return None
        length, content_crc, frame_crc = _HEAD.unpack(frame)
        if zlib.crc32(frame[:8]) != frame_crc or length > MOST_BLOCK:
            raise self._damaged("a block's beginning is not what was written")
        content = self._file.read(length)
        if len(content) < length:
            return None
        if zlib.crc32(content) != content_crc:
            raise self._damaged("a block's content is not what was written")
        return content

    def _damaged(self, how: str) -> RecordingError:
        return RecordingError(f"{self.path} is damaged before byte {self._file.tell()}: {how}")


def _framed(content: bytes) -> bytes:
    start = struct.pack("<II", len(content), zlib.crc32(content))
    return start + struct.pack("<I", zlib.crc32(start)) + content


def _about(recording: str, block: int) -> str:
    return f"recording:{recording}:{block}"
