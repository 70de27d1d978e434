"""The recordings that Mien keeps in its data directory, cleaned of whoever is forgotten.

A recording is what was seen, in order: a person cannot be taken out of the middle so that the rest still follows. So
what was recorded from the first sight of them on, up to the end of that run, is deleted; what came before stays, and
replays up to there. A recording in which nothing is left is deleted.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgpack

from common.encryption import Cipher
from common.messages import Correction, Frame, Identity, Result, unpack
from common.recording import FOLDER, SUFFIX, EmptyRecording, Recording, RecordingError, Writer, being_made
from common.tape import VERDICT

FORGOTTEN = 2**53  # stands for whoever is forgotten; no person has this number
BLOCK_BYTES: Final = 1024 * 1024
_FRAMES: Final = 10_000  # of a camera, that may still be on their way

Track = tuple[str, int]  # camera, number


def forget(data_dir: Path, cipher: Cipher, people: Collection[int], numbers: Collection[int] = ()) -> int:
    """Delete what kept recordings hold of somebody.

    Args:
        people: all numbers they had as a person; none: they have never been more than a stranger.
        numbers: all that they had as a stranger.

    Returns:
        How many recordings were changed or deleted.

    Raises:
        RecordingError: one cannot be read or changed; nothing is known of what is in it.
    """
    folder = data_dir / FOLDER
    own = frozenset(people), frozenset(numbers)
    return sum(_clean(path, cipher, *own) for path in sorted(folder.glob(f"*{SUFFIX}")))


def _clean(path: Path, cipher: Cipher, people: frozenset[int], numbers: frozenset[int]) -> bool:
    """Read a recording once for the places to cut, and once more to copy what stays: it may be larger than memory."""
    if being_made(path):
        raise RecordingError(f"{path} is being recorded at this moment: end that run, then ask again")
    stays: list[int] = []  # entries of each run
    changes = False
    sight = _Sight(people, numbers)
    try:
        opened = Recording(path, lambda: cipher)
    except EmptyRecording:
        path.unlink(missing_ok=True)
        return True
    with opened as recording:
        for _, starts, entry in _placed(recording):
            if starts and sight.length:
                stays.append(sight.stays)
                changes |= sight.changes
                sight = _Sight(people, numbers)
            sight.look(entry)
        sealed, whole = recording.sealed, recording.whole
    stays.append(sight.stays)
    changes |= sight.changes
    if not changes:
        return False
    try:
        if all(count <= 1 for count in stays):
            path.unlink()
            return True
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            with Recording(path, lambda: cipher) as recording, Writer(part, cipher if sealed else None) as writer:
                for block in _blocks(_staying(recording, stays, people)):
                    writer.add(block)
                writer.close(whole=whole)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecordingError(f"{path} cannot be changed: {error.strerror or error}") from error
    return True


def _placed(recording: Recording) -> Iterator[tuple[int, bool, Any]]:
    """Yield each entry with its place in its run, and whether it begins one."""
    place = -1
    for entry in recording.entries():
        starts = entry[0] == "begin" or place < 0
        place = 0 if starts else place + 1
        yield place, starts, entry


def _staying(recording: Recording, stays: list[int], people: frozenset[int]) -> Iterator[bytes]:
    """Yield the packed entries that stay: of each run so many, from its beginning; none where only that would stay."""
    run = -1
    for place, starts, entry in _placed(recording):
        run += starts
        if stays[run] > 1 and place < stays[run]:
            _unname(entry, people)
            yield msgpack.packb(entry)


def _blocks(entries: Iterable[bytes]) -> Iterator[bytes]:
    """Put entries together to blocks of about ``BLOCK_BYTES``."""
    block = bytearray()
    for entry in entries:
        if block and len(block) + len(entry) > BLOCK_BYTES:
            yield bytes(block)
            block.clear()
        block += entry
    if block:
        yield bytes(block)


class _Sight:
    """Finds, entry after entry of one run, the first that has to do with a person.

    Who they are is known some time after they came: their track is theirs from its first frame on, and the frame was on
    its way through the conductor before. So it is remembered of every track when its first frame came in, and of each
    camera when its last frames did.
    """

    def __init__(self, people: frozenset[int], numbers: frozenset[int]) -> None:
        self._people = people
        self._numbers = numbers
        self.length = 0
        self._named: int | None = None  # the first place that says who they are
        self._unnamed: int | None = None  # the first place where their name is among others'
        self._tracks: set[Track] = set()
        self._came: dict[Track, int] = {}
        self._frames: dict[str, OrderedDict[tuple[int, int], int]] = {}

    @property
    def stays(self) -> int:
        """How many entries stay, from the first on."""
        places = [self._came[track] for track in self._tracks if track in self._came]
        return min(self.length, self.length if self._named is None else self._named, *places)

    @property
    def changes(self) -> bool:
        """Whether this run cannot stay as it is."""
        return self.stays < self.length or (self._unnamed is not None and self._unnamed < self.stays)

    def look(self, entry: list[Any]) -> None:
        """Take in the next entry."""
        place = self.length
        self.length += 1
        if len(entry) < 7:
            return
        what, _, told, _, _, _, decided = entry
        if what == "frame":
            self._frame(unpack(Frame, told), place)
        if what == "select" and (told[2] in self._people or told[3] in self._numbers):
            self._name(place)
        for kind, message, *_ in decided:
            if kind == "correction":
                correction = unpack(Correction, message)
                if self._is(correction.was) or self._is(correction.now):
                    self._name(place, (correction.camera, correction.track))
            elif kind in ("result", "picture"):
                self._result(unpack(Result, message), place)
        if self._unnamed is None and _unname(entry, self._people):
            self._unnamed = place

    def _frame(self, frame: Frame, place: int) -> None:
        frames = self._frames.setdefault(frame.camera, OrderedDict())
        frames[frame.run, frame.seq] = place
        if len(frames) > _FRAMES:
            frames.popitem(last=False)

    def _result(self, result: Result, place: int) -> None:
        for face in result.faces:
            track = (result.camera, face.track)
            if track not in self._came:
                frames = self._frames.get(result.camera, OrderedDict())
                # Of a frame that is not remembered any more it is known that it came before all that are.
                oldest = next(iter(frames.values()), place)
                self._came[track] = frames.get((result.run, result.seq), oldest)
            if self._is(face.identity):
                self._name(place, track)

    def _name(self, place: int, track: Track | None = None) -> None:
        self._named = place if self._named is None else self._named
        if track is not None:
            self._tracks.add(track)

    def _is(self, identity: Identity) -> bool:
        return identity.person in self._people or identity.number in self._numbers


def _unname(entry: list[Any], people: frozenset[int]) -> bool:
    """Take a person's name out of verdicts on other people, where they were only among the nearest."""
    found = False
    for kind, value in entry[5] if len(entry) == 7 else ():
        for candidate in value[1] if kind == VERDICT else ():
            if candidate[0] in people:
                candidate[:2] = [FORGOTTEN, ""]
                found = True
    return found
