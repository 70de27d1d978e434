"""The recordings that Mien keeps in its data directory, cleaned of whoever is forgotten.

A recording is what was seen, in order: a person cannot be taken out of the middle so that the rest still follows. So
what was recorded from the first sight of them on, up to the end of that run, is deleted; what came before stays, and
replays up to there. A recording in which nothing is left is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgpack

from common.encryption import Cipher
from common.messages import Correction, Frame, Identity, Result, unpack
from common.recording import FOLDER, SUFFIX, Recording, RecordingError, Writer, being_made
from common.tape import VERDICT

FORGOTTEN = 2**53  # stands for whoever is forgotten; no person has this number


def forget(data_dir: Path, cipher: Cipher, person: int, numbers: Collection[int] = ()) -> int:
    """Delete what kept recordings hold of a person, also under the numbers they had as a stranger.

    Returns:
        How many recordings were changed or deleted.

    Raises:
        RecordingError: one cannot be read or changed; nothing is known of what is in it.
    """
    folder = data_dir / FOLDER
    return sum(_clean(path, cipher, person, frozenset(numbers)) for path in sorted(folder.glob(f"*{SUFFIX}")))


def _clean(path: Path, cipher: Cipher, person: int, numbers: frozenset[int]) -> bool:
    if being_made(path):
        raise RecordingError(f"{path} is being recorded at this moment: end that run, then ask again")
    with Recording(path, lambda: cipher) as recording:
        runs = _runs(recording)
        sealed, whole = recording.sealed, recording.whole
    kept = [run[: _first_sight(run, person, numbers)] for run in runs]
    renamed = sum(_unname(entry, person) for run in kept for entry in run)
    if not renamed and all(len(left) == len(run) for left, run in zip(kept, runs, strict=True)):
        return False
    entries = [entry for run in kept if len(run) > 1 for entry in run]
    try:
        if not entries:
            path.unlink()
            return True
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with Writer(part, cipher if sealed else None) as writer:
            for start in range(0, len(entries), 1000):
                writer.add(b"".join(msgpack.packb(entry) for entry in entries[start : start + 1000]))
            writer.close(whole=whole)
        os.replace(part, path)
    except OSError as error:
        raise RecordingError(f"{path} cannot be changed: {error.strerror or error}") from error
    return True


def _runs(recording: Recording) -> list[list[Any]]:
    runs: list[list[Any]] = []
    for entry in recording.entries():
        if entry[0] == "begin" or not runs:
            runs.append([])
        runs[-1].append(entry)
    return runs


def _first_sight(run: list[Any], person: int, numbers: frozenset[int]) -> int:
    """Return the place of the first entry that has to do with a person; the length of the run if there is none."""
    tracks: set[tuple[str, int]] = set()
    named = len(run)
    for place, entry in enumerate(run):
        if len(entry) < 7:
            continue
        what, _, told, _, _, _, decided = entry
        if what == "select" and (told[2] == person or told[3] in numbers):
            named = min(named, place)
        for kind, message, *_ in decided:
            if kind == "correction":
                correction = unpack(Correction, message)
                if any(_is(one, person, numbers) for one in (correction.was, correction.now)):
                    tracks.add((correction.camera, correction.track))
                    named = min(named, place)
            elif kind in ("result", "picture"):
                result = unpack(Result, message)
                for face in result.faces:
                    if _is(face.identity, person, numbers):
                        tracks.add((result.camera, face.track))
                        named = min(named, place)
    if not tracks:
        return named
    # Who they are is known some time after they came: their track is theirs from its first frame on, and the frame
    # was on its way through the conductor before.
    first = named
    for place, entry in enumerate(run[:named]):
        for kind, message, *_ in entry[6] if len(entry) == 7 else ():
            if kind == "result":
                result = unpack(Result, message)
                if any((result.camera, face.track) in tracks for face in result.faces):
                    return min(first, _arrival(run[:place], result))
    return first


def _unname(entry: list[Any], person: int) -> bool:
    """Take a person's name out of verdicts on other people, where they were only among the nearest."""
    found = False
    for kind, value in entry[5] if len(entry) == 7 else ():
        for candidate in value[1] if kind == VERDICT else ():
            if candidate[0] == person:
                candidate[:2] = [FORGOTTEN, ""]
                found = True
    return found


def _arrival(run: list[Any], result: Result) -> int:
    """Return the place where the frame of a result came in."""
    for place in range(len(run) - 1, -1, -1):
        if run[place][0] == "frame":
            frame = unpack(Frame, run[place][2])
            if (frame.camera, frame.run, frame.seq) == (result.camera, result.run, result.seq):
                return place
    return len(run)


def _is(identity: Identity, person: int, numbers: frozenset[int]) -> bool:
    return identity.person == person or (identity.number is not None and identity.number in numbers)
