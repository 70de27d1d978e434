"""Forgetting somebody: everything that Mien keeps of them, everywhere it keeps it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select

from common import earlier, exports, kept_recordings, people, records, snapshots, transfer
from common.earlier import Earlier
from common.people import PeopleError, Person
from common.recording import FOLDER, RecordingError
from common.rundir import is_running
from common.schema import PERSON, REFERENCE, SIGHTING, UNKNOWN
from common.settings import Config
from common.store import Store
from common.tables import FORMATS

LEFT_S = 60.0  # a file that has not got its name for so long will never get it
NOTICED_S = 3.0  # a running Mien looks for changes of people once a second, and what it shows is not older than that
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was deleted."""

    references: int
    sightings: int
    snapshots: int
    redacted: int  # snapshots that show others, too: they were taken out
    exports: int
    history: int  # tracks and minutes
    episodes: int
    recordings: int = 0

    def __str__(self) -> str:
        return (
            f"{self.references} references, {self.sightings} sightings, {self.history} rows of history, "
            f"{self.episodes} episodes, {self.recordings} recordings, {self.snapshots} snapshots, "
            f"taken out of {self.redacted} more snapshots and {self.exports} exports"
        )


def forget(store: Store, config: Config, who: str) -> Forgotten:
    """Delete an enrolled person with all that is kept of them. What runs notices within a second.

    Files come first, so that what cannot be finished is still there to be asked for again; and once more at the end,
    for what was written meanwhile. Where a Mien runs that is three seconds later: until then it may still know them.

    Raises:
        PeopleError: there is no such person, or a file of theirs cannot be deleted.
    """
    person = people.find(store, who)
    them = _whole(store, person)
    _clean_leftovers(config)
    with store.read() as connection:
        tracks = _tracks(connection, them)
    gone, redacted = _clean_snapshots(snapshots.folder(config), them, tracks)
    cleaned = _clean_exports(store, config, them)
    recordings = _clean_recordings(store, config, them)
    with store.write() as connection:
        tracks |= _tracks(connection, them)  # of what was taken meanwhile
        count = select(func.count()).select_from(SIGHTING).where(SIGHTING.c.person_id == person.id)
        sightings = connection.execute(count).scalar_one()
        # Who was known under a number before is forgotten under that number, too.
        connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id.in_(them.strangers)))
        history, episodes = records.erase(store, connection, person.id)
        for number in them.strangers:
            records.erase(store, connection, -number)
        for number in them.people:
            earlier.forget(store, connection, number)
        connection.execute(delete(REFERENCE).where(REFERENCE.c.person_id == person.id))
        connection.execute(delete(SIGHTING).where(SIGHTING.c.person_id == person.id))
        connection.execute(delete(PERSON).where(PERSON.c.id == person.id))
        done = Forgotten(
            references=person.references, sightings=sightings, snapshots=gone, redacted=redacted, exports=cleaned,
            history=history, episodes=episodes, recordings=recordings,
        )  # fmt: skip
        store.changed(connection)
        # The audit log keeps that somebody was forgotten, not who looked how; earlier lines lose the name, too.
        for number in them.people:
            store.redact(connection, number, them.names)
        store.audit(connection, "forgot", f"#{person.id}: {done}")
    store.scrub()
    gone, redacted, cleaned = _clean_late(store, config, them, tracks)
    return replace(
        done, snapshots=done.snapshots + gone, redacted=done.redacted + redacted, exports=done.exports + cleaned
    )


def forget_unknown(store: Store, config: Config, number: int) -> None:
    """Delete an unknown person with all that is kept of them.

    Raises:
        PeopleError: nobody of that number is kept, or a file of theirs cannot be changed. Files come first, so that the
            number is still there to be asked for again.
    """
    them = Earlier(strangers=frozenset({number}))
    _clean_leftovers(config)
    with store.read() as connection:
        tracks = _tracks(connection, them)
    files = sum(_clean_snapshots(snapshots.folder(config), them, tracks))
    files += _clean_exports(store, config, them)
    files += _clean_recordings(store, config, them)
    with store.write() as connection:
        tracks |= _tracks(connection, them)
        done = connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id == number)).rowcount
        seen = delete(SIGHTING).where(SIGHTING.c.unknown_id == number, SIGHTING.c.person_id.is_(None))
        done += connection.execute(seen).rowcount
        done += sum(records.erase(store, connection, -number))
        if not done and not files:
            raise PeopleError(f"no unknown person has the number {number}")
        store.changed(connection)
        store.audit(connection, "forgot", f"unknown person {number}")
    store.scrub()
    _clean_late(store, config, them, tracks)


def _whole(store: Store, person: Person) -> Earlier:
    """Return all that a person is and was."""
    numbers = select(SIGHTING.c.unknown_id).where(SIGHTING.c.person_id == person.id, SIGHTING.c.unknown_id.is_not(None))
    with store.read() as connection:
        was = earlier.earlier_of(store, connection, person.id)
        seen = frozenset(connection.execute(numbers.distinct()).scalars())
    return Earlier(names=was.names | {person.name}, people=was.people | {person.id}, strangers=was.strangers | seen)


def _tracks(connection: Connection, them: Earlier) -> frozenset[int]:
    """Return the tracks that are known to be theirs: pictures of them may be older than their name."""
    theirs = or_(SIGHTING.c.person_id.in_(them.people), SIGHTING.c.unknown_id.in_(them.strangers))
    return frozenset(connection.execute(select(SIGHTING.c.track).where(theirs)).scalars())


def _clean_late(store: Store, config: Config, them: Earlier, tracks: frozenset[int]) -> tuple[int, int, int]:
    """Clean what was written after the files were gone through; return how many snapshots went, were changed, exports.

    Raises:
        PeopleError: that cannot be; nobody can ask for it again, so the text says what to do.
    """
    folder, writes = snapshots.folder(config), is_running(config)  # asked first: it may end after its last picture
    try:
        gone, redacted = _clean_snapshots(folder, them, tracks)
        cleaned = _clean_exports(store, config, them)
        if writes:
            end = time.monotonic() + NOTICED_S
            while time.monotonic() < end and is_running(config):
                time.sleep(_LOOK_EVERY_S)
            more = _clean_snapshots(folder, them, tracks)
            gone, redacted = gone + more[0], redacted + more[1]
            cleaned += _clean_exports(store, config, them)
        return gone, redacted, cleaned
    except PeopleError as error:
        raise PeopleError(
            f"the store has forgotten them, but a file that was written meanwhile is to be deleted by hand: {error}"
        ) from error


def _clean_snapshots(folder: Path, them: Earlier, tracks: frozenset[int]) -> tuple[int, int]:
    gone = redacted = 0
    for path in sorted(folder.glob(f"*{snapshots.RESULT}")) if folder.is_dir() else []:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            faces = [face for face in result["faces"] if _is(face, them, tracks)]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not a snapshot's
        except FileNotFoundError:
            continue  # deleted a moment ago
        except OSError as error:
            raise PeopleError(f"{path} cannot be read, so that not all was forgotten: {error}") from error
        if not faces:
            continue
        stem = path.with_name(path.name.removesuffix(snapshots.RESULT))
        try:
            if len(faces) == len(result["faces"]):
                for file in snapshots.paths(stem):
                    file.unlink(missing_ok=True)
                gone += 1
            else:
                snapshots.take_out(stem, result, faces)
                redacted += 1
        except OSError as error:
            raise PeopleError(f"{path} cannot be changed, so that not all was forgotten: {error}") from error
    return gone, redacted


_SUFFIXES = (snapshots.PICTURE, snapshots.ANNOTATED, snapshots.RESULT)


def _is(face: Any, them: Earlier, tracks: frozenset[int]) -> bool:
    """Whether a face of a snapshot is theirs, or may be; by its track only while nobody was named."""
    if face["identity"].get("withheld") and them.people:
        return True  # whose face it is was not written down, but nothing may be kept of it in any case
    person, number = face["identity"].get("person"), face["identity"].get("number")
    if person is None and number is None:
        return face.get("track") in tracks
    return person in them.people or number in them.strangers


def _clean_recordings(store: Store, config: Config, them: Earlier) -> int:
    try:
        return kept_recordings.forget(config.storage.data_dir, store.cipher, them.people, them.strangers)
    except RecordingError as error:
        raise PeopleError(f"{error}; not all was forgotten") from error


def _clean_exports(store: Store, config: Config, them: Earlier) -> int:
    folder = config.storage.data_dir / transfer.FOLDER
    cleaned = exports.clean(folder, them.people, them.strangers)
    if not them.people:
        return cleaned
    # A name that they gave up may be somebody else's by now.
    own = {people.name_key(name) for name in them.names}
    others = {people.name_key(one.name) for one in people.everybody(store) if one.id not in them.people}

    def theirs(entry: dict[str, Any]) -> bool:
        key = people.name_key(entry["name"])
        return key in own and (key not in others or entry.get("number") in them.people)

    for path in sorted(folder.glob("*.mien")) if folder.is_dir() else []:
        try:
            entries = transfer.read_entries(store.cipher, path)
        except PeopleError as error:
            raise PeopleError(
                f"not all was forgotten: it cannot be known who is in {path}, which is damaged, of another key or of a "
                "newer Mien. Move or delete it, then ask again."
            ) from error
        left = [entry for entry in entries if not theirs(entry)]
        if len(left) < len(entries):
            transfer.write_entries(store.cipher, path, left)
            cleaned += 1
    return cleaned


def _clean_leftovers(config: Config) -> None:
    """Delete what a process that was killed has not finished writing: nobody knows whom it shows."""
    data_dir, long_ago = config.storage.data_dir, time.time() - LEFT_S
    # Snapshots may lie among what other programs have not finished: only names of Mien's there.
    mien = (f"*{ending}.????????.part" for ending in _SUFFIXES)
    for folder, names in (
        (snapshots.folder(config), (*mien, f"*{snapshots.RESULT}.part")),
        (data_dir / transfer.FOLDER, ("*.part", *(f"*.part{ending}" for ending in FORMATS))),
        (data_dir / FOLDER, ("*.part",)),
    ):
        for path in sorted(found for name in names for found in folder.glob(name)):
            try:
                if path.stat().st_mtime < long_ago:
                    path.unlink()
            except FileNotFoundError:
                continue  # it has just got its name
            except OSError as error:
                raise PeopleError(f"{path} cannot be deleted, so that not all was forgotten: {error}") from error
