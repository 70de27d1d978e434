"""Forgetting somebody: everything that Mien keeps of them, everywhere it keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select

from common import exports, kept_recordings, people, records, snapshots, transfer
from common.people import PeopleError
from common.recording import RecordingError
from common.schema import PERSON, REFERENCE, SIGHTING, UNKNOWN
from common.settings import Config
from common.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was deleted."""

    references: int
    sightings: int
    snapshots: int
    redacted: int  # snapshots that show others, too: the name was taken out
    exports: int
    history: int  # tracks and minutes
    episodes: int
    recordings: int = 0

    def __str__(self) -> str:
        return (
            f"{self.references} references, {self.sightings} sightings, {self.history} rows of history, "
            f"{self.episodes} episodes, {self.recordings} recordings, {self.snapshots} snapshots, "
            f"name taken out of {self.redacted} snapshots and {self.exports} exports"
        )


def forget(store: Store, config: Config, who: str) -> Forgotten:
    """Delete an enrolled person with all that is kept of them. What runs notices within a second.

    Raises:
        PeopleError: there is no such person, or a file of theirs cannot be deleted. Files come first: what cannot be
            finished is still there to be asked for again.
    """
    person = people.find(store, who)
    gone, redacted = _clean_snapshots(snapshots.folder(config), person.id, person.name)
    folder = config.storage.data_dir / transfer.FOLDER
    cleaned = _clean_exports(store, folder, person.name) + exports.clean(folder, person.id)
    recordings = _clean_recordings(store, config, person.id, _numbers(store, person.id))
    with store.write() as connection:
        count = select(func.count()).select_from(SIGHTING).where(SIGHTING.c.person_id == person.id)
        sightings = connection.execute(count).scalar_one()
        numbers = select(SIGHTING.c.unknown_id).where(SIGHTING.c.person_id == person.id)
        # Who was known under a number before is forgotten under that number, too.
        own = [number for number in connection.execute(numbers.distinct()).scalars() if number is not None]
        connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id.in_(own)))
        history, episodes = records.erase(store, connection, person.id)
        for number in own:
            records.erase(store, connection, -number)
        connection.execute(delete(REFERENCE).where(REFERENCE.c.person_id == person.id))
        connection.execute(delete(SIGHTING).where(SIGHTING.c.person_id == person.id))
        connection.execute(delete(PERSON).where(PERSON.c.id == person.id))
        done = Forgotten(
            references=person.references, sightings=sightings, snapshots=gone, redacted=redacted, exports=cleaned,
            history=history, episodes=episodes, recordings=recordings,
        )  # fmt: skip
        store.changed(connection)
        # The audit log keeps that somebody was forgotten, not who looked how; earlier lines lose the name, too.
        store.redact(connection, person.id, person.name)
        store.audit(connection, "forgot", f"#{person.id}: {done}")
    store.scrub()
    return done


def forget_unknown(store: Store, config: Config, number: int) -> None:
    """Delete an unknown person, their sightings, and what recordings hold of them.

    Raises:
        PeopleError: nobody of that number is kept, or a recording cannot be changed: it is cleaned first, so that the
            number is still there to be asked for again.
    """
    recordings = _clean_recordings(store, config, None, [number])
    with store.write() as connection:
        done = connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id == number)).rowcount
        seen = delete(SIGHTING).where(SIGHTING.c.unknown_id == number, SIGHTING.c.person_id.is_(None))
        done += connection.execute(seen).rowcount
        done += sum(records.erase(store, connection, -number))
        if not done and not recordings:
            raise PeopleError(f"no unknown person has the number {number}")
        store.changed(connection)
        store.audit(connection, "forgot", f"unknown person {number}")
    store.scrub()


def _clean_snapshots(folder: Path, person: int, name: str) -> tuple[int, int]:
    gone = redacted = 0
    for path in sorted(folder.glob(f"*{snapshots.RESULT}")) if folder.is_dir() else []:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            faces = [face for face in result["faces"] if face["identity"].get("person") == person]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not a snapshot's
        except OSError as error:
            raise PeopleError(f"{path} cannot be read, so that nothing was forgotten yet: {error}") from error
        if not faces:
            continue
        files = [path.with_name(path.name.removesuffix(snapshots.RESULT) + suffix) for suffix in _SUFFIXES]
        try:
            if len(faces) == len(result["faces"]):
                for file in files:
                    file.unlink(missing_ok=True)
                gone += 1
            else:
                _redact(path, result, faces)
                # The name is drawn into the annotated picture; the plain one shows others who are still known.
                files[1].unlink(missing_ok=True)
                redacted += 1
        except OSError as error:
            raise PeopleError(f"{path} cannot be changed, so that not all was forgotten: {error}") from error
    return gone, redacted


_SUFFIXES = (snapshots.PICTURE, snapshots.ANNOTATED, snapshots.RESULT)


def _numbers(store: Store, person: int) -> list[int]:
    """Return the numbers that a person had as a stranger."""
    numbers = select(SIGHTING.c.unknown_id).where(SIGHTING.c.person_id == person).distinct()
    with store.read() as connection:
        return [number for number in connection.execute(numbers).scalars() if number is not None]


def _clean_recordings(store: Store, config: Config, person: int | None, numbers: list[int]) -> int:
    try:
        return kept_recordings.forget(config.storage.data_dir, store.cipher, person, numbers)
    except RecordingError as error:
        raise PeopleError(f"{error}; not all was forgotten") from error


def _redact(path: Path, result: Any, faces: list[Any]) -> None:
    for face in faces:
        face["identity"] = {"status": "unknown", "person": None, "name": None, "distance": None, "confidence": None}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1), encoding="utf-8")
    part.replace(path)


def _clean_exports(store: Store, folder: Path, name: str) -> int:
    cleaned = 0
    for path in sorted(folder.glob("*.mien")) if folder.is_dir() else []:
        entries = transfer.read_entries(store.cipher, path)
        left = [entry for entry in entries if people.name_key(entry["name"]) != people.name_key(name)]
        if len(left) < len(entries):
            transfer.write_entries(store.cipher, path, left)
            cleaned += 1
    return cleaned
