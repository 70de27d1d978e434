"""People: who is enrolled, what they are called, what they allow, and their reference faces.

These functions are what the command line, the page and the conductor's keeper call; each is one transaction with a line
in the audit log. They know nothing of cameras or networks.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, delete, insert, select, update

from common import earlier, records
from common.earlier import Earlier
from common.encryption import KeyProblem
from common.gallery import Candidate, Gallery, Member, Thresholds
from common.names import LooksAlike as LooksAlike
from common.names import NameTaken as NameTaken
from common.names import NotEnrolled as NotEnrolled
from common.names import PeopleError as PeopleError
from common.names import checked_name as checked_name
from common.names import name_key as name_key
from common.person import Consent as Consent
from common.person import Person as Person
from common.person import Reference as Reference
from common.person import Role as Role
from common.person import find_in, person_of, select_people
from common.schema import AUDIT, PERSON, REFERENCE, SIGHTING, UNKNOWN, UNKNOWN_CROP
from common.sightings import sightings_of as sightings_of
from common.store import Store
from common.strangers import MODEL as MODEL
from common.strangers import Stranger as Stranger
from common.strangers import unknown_people as unknown_people

MAX_NOTES = 10_000
MAX_REFERENCES = 20  # a person; the best are kept
STRANGER = 0.72  # farther is certainly somebody else: of one person, poor ones too, the samples are at most 0.56 apart
LAST_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # beyond it, calendars end somewhere in the world

log = logging.getLogger("mien.people")


def everybody(store: Store) -> list[Person]:
    """Return all enrolled people, by name."""
    with store.read() as connection:
        rows = connection.execute(select_people().order_by(PERSON.c.name_key)).all()
    return [person_of(row) for row in rows]


def find(store: Store, who: str) -> Person:
    """Return the person of this name, or of this number when written ``#3``. Raises PeopleError: there is none."""
    with store.read() as connection:
        return find_in(connection, who)


def called(store: Store, name: str) -> Person | None:
    """Return who has this name, None: nobody."""
    return next((person for person in everybody(store) if name_key(person.name) == name_key(name)), None)


def add(
    store: Store,
    name: str,
    references: Sequence[Reference],
    *,
    role: Role = "patient",
    notes: str = "",
    consent: Consent = "given",
    consent_until: float | None = None,
    stranger: int | None = None,
) -> Person:
    """Enrol somebody; ``stranger``: the number they had so far, whose sightings and history become theirs.

    Raises:
        PeopleError: the name is taken or cannot be one, or another field is wrong.
    """
    fields: dict[str, Any] = {"role": role, "notes": notes, "consent": consent, "consent_until": consent_until}
    with store.write() as connection:
        person = add_in(store, connection, name, references, **fields)
        if stranger is not None:
            _was_stranger(store, connection, person, stranger)
        return person


def add_references(
    store: Store, who: str, references: Sequence[Reference], *, stranger: int | None = None, **changes: Any
) -> Person:
    """Add pictures to somebody; beyond twenty, the best are kept. ``stranger``: as of ``add``.

    Args:
        changes: what else of the person is to be changed, as of ``change``.

    Raises:
        PeopleError: there is no such person, or a field is wrong.
    """
    with store.write() as connection:
        person = find_in(connection, who)
        if changes:
            _change_in(store, connection, person, **changes)
        _insert_references(store, connection, person.id, references)
        store.changed(connection)
        store.audit(connection, "added references", f"#{person.id} {person.name}, {len(references)}")
        if stranger is not None:
            _was_stranger(store, connection, person, stranger)
        return find_in(connection, f"#{person.id}")


def change(
    store: Store,
    who: str,
    *,
    name: str | None = None,
    role: Role | None = None,
    notes: str | None = None,
    consent: Consent | None = None,
    consent_until: float | None = None,
    forever: bool = False,
) -> Person:
    """Change what is given of a person; ``forever``: consent does not end by itself.

    Raises:
        PeopleError: no such person, nothing is given, the new name is taken, or a field is wrong.
    """
    fields: dict[str, Any] = {"role": role, "notes": notes, "consent": consent, "consent_until": consent_until}
    if not forever and all(value is None for value in (name, *fields.values())):
        raise PeopleError("what is to be changed? The name, role, notes, consent, or until when it is given")
    with store.write() as connection:
        person = find_in(connection, who)
        _change_in(store, connection, person, name=name, forever=forever, **fields)
        return find_in(connection, f"#{person.id}")


def is_withheld(store: Store, number: int) -> bool:
    """Return whether nothing may be said of a person: consent is refused or over, or nobody has this number."""
    try:
        return find(store, f"#{number}").withheld(time.time())
    except PeopleError:
        return True


def merge(store: Store, who: str, into: str) -> Person:
    """Make two people one: references and sightings go to ``into``, the other is gone.

    Consent ends when the first of the two does.

    Raises:
        PeopleError: no such person, both are one, or a consent that is refused or has run out would be given anew.
    """
    with store.write() as connection:
        gone, kept = find_in(connection, who), find_in(connection, into)
        if gone.id == kept.id:
            raise PeopleError(f"{gone.name!r} and {kept.name!r} are one person already")
        now = time.time()
        if gone.consent == "refused" and kept.consent != "refused":
            raise PeopleError(f"{gone.name!r} has refused consent: change that first, or merge the other way round")
        if gone.withheld(now) and not kept.withheld(now):
            raise PeopleError(f"{gone.name!r}: consent has run out; change that first, or merge the other way round")
        numbers = select(SIGHTING.c.unknown_id).where(
            SIGHTING.c.person_id == gone.id, SIGHTING.c.unknown_id.is_not(None)
        )
        had = connection.execute(numbers.distinct()).scalars().all()
        for table in (REFERENCE, SIGHTING):
            connection.execute(update(table).where(table.c.person_id == gone.id).values(person_id=kept.id))
        records.reassign(store, connection, gone.id, kept.id)
        # Stays under the old number as well: they may be split off again.
        earlier.remember(store, connection, gone.id, names={gone.name}, strangers=had)
        was = earlier.earlier_of(store, connection, gone.id)
        earlier.remember(
            store, connection, kept.id, names=was.names, people=was.people | {gone.id}, strangers=was.strangers
        )
        _keep_best(connection, kept.id)
        notes = "\n".join(part for part in (kept.notes, gone.notes) if part)[:MAX_NOTES]
        until = min((end for end in (kept.consent_until, gone.consent_until) if end is not None), default=None)
        values = {"notes": notes, "consent_until": until, "changed_at": now}
        connection.execute(update(PERSON).where(PERSON.c.id == kept.id).values(**values))
        connection.execute(delete(PERSON).where(PERSON.c.id == gone.id))
        store.changed(connection)
        store.audit(connection, "merged", f"#{gone.id} {gone.name} into #{kept.id} {kept.name}")
        return find_in(connection, f"#{kept.id}")


def split(store: Store, who: str, name: str, references: Sequence[int]) -> Person:
    """Make a new person of some references of another one, by their numbers (``references_of``).

    Whoever was merged into that one, and is split off under a name they had, is again all that they were before.

    Raises:
        PeopleError: no such person or references, or the name is taken.
    """
    name = checked_name(name)
    with store.write() as connection:
        person = find_in(connection, who)
        own = select(REFERENCE.c.id).where(REFERENCE.c.person_id == person.id)
        have, wanted = set(connection.execute(own).scalars()), set(references)
        if not wanted or not wanted <= have or wanted == have:
            numbers = ", ".join(str(number) for number in sorted(have))
            raise PeopleError(f"name some, but not all, of the references of {person.name!r}: {numbers}")
        if connection.execute(select(PERSON.c.id).where(PERSON.c.name_key == name_key(name))).first() is not None:
            raise PeopleError(f"somebody called {name!r} is enrolled already")
        row = connection.execute(select(PERSON).where(PERSON.c.id == person.id)).one()._asdict()
        row |= {"name": name, "name_key": name_key(name), "changed_at": time.time()}
        row.pop("id")
        done = connection.execute(insert(PERSON).values(**row))
        assert done.inserted_primary_key is not None
        new = int(done.inserted_primary_key[0])
        connection.execute(update(REFERENCE).where(REFERENCE.c.id.in_(wanted)).values(person_id=new))
        was = _taken_back(store, connection, person.id, name)
        if was is not None:
            earlier.remember(store, connection, new, names=was.names, people=was.people, strangers=was.strangers)
            seen = update(SIGHTING).where(SIGHTING.c.person_id == person.id, SIGHTING.c.unknown_id.in_(was.strangers))
            connection.execute(seen.values(person_id=new))
        store.changed(connection)
        store.audit(connection, "split", f"#{new} {name} from #{person.id} {person.name}, {len(wanted)} references")
        return find_in(connection, f"#{new}")


def references_of(store: Store, who: str) -> list[tuple[int, Reference]]:
    """Return a person's references with their numbers, best first. Raises PeopleError: no such person."""
    with store.read() as connection:
        person = find_in(connection, who)
        chosen = select(REFERENCE).where(REFERENCE.c.person_id == person.id).order_by(REFERENCE.c.quality.desc())
        rows = connection.execute(chosen).all()
    try:
        return [
            (
                int(row.id),
                Reference(
                    embedding=store.open_embedding(row.embedding),
                    crop=None if row.crop is None else store.open_crop(row.crop),
                    source=row.source,
                    quality=row.quality,
                ),
            )
            for row in rows
        ]
    except KeyProblem as error:
        raise PeopleError(
            f"a picture of {person.name!r} is damaged in the store: forget and enrol them anew"
        ) from error


def from_unknown(
    store: Store,
    number: int,
    name: str,
    *,
    again: bool = False,
    alike: bool = False,
    forever: bool = False,
    **fields: Any,
) -> Person:
    """Name an unknown person: their crops become references, their sightings the new person's.

    Args:
        again: where the name is taken, crops and sightings go to whoever has it (a stranger may have two numbers) …
        alike: … also if most crops are certainly not of that person, or show somebody else who is enrolled.
        forever: consent does not end by itself, as a new person's does not.
        fields: role, notes, consent … of the person.

    Raises:
        PeopleError: nobody of that number is kept, the name is taken, or it is somebody else's.
    """
    with store.read() as connection:
        rows = connection.execute(select(UNKNOWN_CROP).where(UNKNOWN_CROP.c.unknown_id == number)).all()
        whole = connection.execute(select(UNKNOWN).where(UNKNOWN.c.id == number)).first()
    if whole is None:
        raise PeopleError(f"no unknown person has the number {number}: they may have been named or be too long ago")
    source = f"unknown person {number}"
    references = [
        Reference(
            embedding=store.open_embedding(row.embedding),
            crop=store.open_crop(row.crop),
            source=source,
            quality=row.quality,
        )
        for row in rows
    ] or [Reference(embedding=store.open_embedding(whole.embedding), crop=None, source=source, quality=0.5)]
    name = checked_name(name)
    there = called(store, name) if again else None
    if there is not None:
        if not alike:
            known, looks = gallery(store), [reference.embedding for reference in references]
            other = look_alike(known, looks, name)
            if other is not None or shows_another(known, there.id, looks):
                who = f"looks like {other.name!r}" if other is not None and not other.withheld else "is somebody else"
                raise PeopleError(f"unknown person {number} {who}: --alike gives the pictures to {name!r} all the same")
        changes = fields | ({"forever": True} if forever else {})
        return add_references(store, name, references, stranger=number, **changes)
    return add(store, name, references, stranger=number, **fields)


def gallery(
    store: Store, thresholds: Thresholds | None = None, *, at: float | None = None, index_above: int | None = None
) -> Gallery:
    """Return everybody's references as they are now; consent is judged at ``at`` (unix seconds; None: now)."""
    at = time.time() if at is None else at
    with store.read() as connection:
        generation = store.generation_in(connection)
        people = [person_of(row) for row in connection.execute(select_people().order_by(PERSON.c.id)).all()]
        chosen = select(REFERENCE.c.person_id, REFERENCE.c.embedding).where(REFERENCE.c.model == MODEL)
        rows = connection.execute(chosen.order_by(REFERENCE.c.id)).all()
    embeddings: dict[int, list[NDArray[np.float32]]] = {}
    damaged = set()
    for person_id, sealed in rows:
        try:
            embeddings.setdefault(person_id, []).append(store.open_embedding(sealed))
        except KeyProblem:  # the key has been checked: one bad block of the disk must not take everybody's name
            damaged.add(person_id)
    if damaged:
        who = ", ".join(f"#{person}" for person in sorted(damaged))
        log.error("references of %s are damaged in the store and left out: enrol them anew", who)
    members = [
        Member(
            person=p.id,
            name=p.name,
            embeddings=np.stack(embeddings[p.id]),
            withheld=p.withheld(at),
            until=math.inf if p.consent_until is None else p.consent_until,
        )
        for p in people
        if embeddings.get(p.id)
    ]
    return Gallery(members, thresholds, generation=generation, index_above=index_above)


def strange(gallery: Gallery, person: int, embeddings: Sequence[NDArray[np.float32]]) -> list[bool] | None:
    """Return which of these embeddings, (128,) each, are certainly not of a person, by the nearest of their pictures.

    None: nothing is known to compare them with. The gallery holds only what the present network made: from another
    one's embeddings there is no distance.
    """
    own = next((member.embeddings for member in gallery.members if member.person == person), None)
    if own is None:
        return None
    return [bool(np.linalg.norm(own - one, axis=1).min() > STRANGER) for one in embeddings]


def shows_another(gallery: Gallery, person: int, embeddings: Sequence[NDArray[np.float32]]) -> bool:
    """Whether most of these embeddings, (128,) each, are certainly not of a person."""
    odd = strange(gallery, person, embeddings)
    return odd is not None and 2 * sum(odd) > len(odd)


def look_alike(gallery: Gallery, embeddings: Sequence[NDArray[np.float32]], name: str) -> Candidate | None:
    """Return who is enrolled under another name and shown by most of these embeddings, (128,) each, or None.

    Where whoever has that name is about as near as the other one, it is not the other one who is shown.
    """
    votes: dict[int, int] = {}
    found: dict[int, Candidate] = {}
    for embedding in embeddings:
        verdict = gallery.recognise(embedding)
        nearest = verdict.candidates[: 1 if verdict.clear else 2]
        best = None if any(name_key(one.name) == name_key(name) for one in nearest) else verdict.best
        if best is not None and best.score >= 0:
            found[best.person] = best
            votes[best.person] = votes.get(best.person, 0) + 1
    alike = max(votes, key=lambda other: votes[other], default=None)
    return found[alike] if alike is not None and 2 * votes[alike] > len(embeddings) else None


def audit_log(store: Store) -> list[Row[Any]]:
    """Return the lines of the audit log, oldest first: at, who, did, about."""
    with store.read() as connection:
        return list(connection.execute(select(AUDIT).order_by(AUDIT.c.id)).all())


def check_fields(*, role: Any = None, notes: Any = None, consent: Any = None, consent_until: Any = None) -> None:
    """Raise PeopleError unless what is said of a person is as it must be: it may come from any program."""
    if role is not None and role not in get_args(Role):
        raise PeopleError(f"a role is one of {', '.join(get_args(Role))}, not {str(role)[:40]!r}")
    if consent is not None and consent not in get_args(Consent):
        raise PeopleError(f"consent is {' or '.join(get_args(Consent))}, not {str(consent)[:40]!r}")
    if consent_until is not None and not isinstance(consent_until, int | float):
        raise PeopleError(f"consent ends at a time in unix seconds, not {str(consent_until)[:40]!r}")
    if consent_until is not None and not 0 <= consent_until < LAST_END:
        raise PeopleError(
            f"consent ends in the years 1970 to 9998, or never, not at {str(consent_until)[:40]} (unix seconds)"
        )
    if notes is not None and not isinstance(notes, str):
        raise PeopleError(f"notes are words, not {str(notes)[:40]!r}")
    if notes is not None and len(notes) > MAX_NOTES:
        raise PeopleError(f"notes have at most {MAX_NOTES} characters, these have {len(notes)}")


# --- inside ---


def add_in(
    store: Store,
    connection: Connection,
    name: str,
    references: Sequence[Reference],
    *,
    role: Role = "patient",
    notes: str = "",
    consent: Consent = "given",
    consent_until: float | None = None,
) -> Person:
    """Enrol somebody within the caller's transaction; see ``add``."""
    name = checked_name(name)
    check_fields(role=role, notes=notes, consent=consent, consent_until=consent_until)
    now = time.time()
    if connection.execute(select(PERSON.c.id).where(PERSON.c.name_key == name_key(name))).first() is not None:
        raise NameTaken(f"somebody called {name!r} is enrolled already: add pictures to them, or take another name")
    fields = {"role": role, "notes": notes, "consent": consent, "consent_until": consent_until}
    times = {"created_at": now, "changed_at": now}
    done = connection.execute(insert(PERSON).values(name=name, name_key=name_key(name), **fields, **times))
    assert done.inserted_primary_key is not None
    person = int(done.inserted_primary_key[0])
    _insert_references(store, connection, person, references)
    store.changed(connection)
    store.audit(connection, "enrolled", f"#{person} {name}, {len(references)} references")
    return find_in(connection, f"#{person}")


def _change_in(
    store: Store,
    connection: Connection,
    person: Person,
    *,
    name: str | None = None,
    role: Role | None = None,
    notes: str | None = None,
    consent: Consent | None = None,
    consent_until: float | None = None,
    forever: bool = False,
) -> None:
    """Change a person within the caller's transaction; see ``change``."""
    check_fields(role=role, notes=notes, consent=consent, consent_until=consent_until)
    values: dict[str, Any] = {"role": role, "notes": notes, "consent": consent, "consent_until": consent_until}
    values = {key: value for key, value in values.items() if value is not None}
    if forever:
        values["consent_until"] = None
    if name is not None:
        name = checked_name(name)
        same = select(PERSON.c.id).where(PERSON.c.name_key == name_key(name), PERSON.c.id != person.id)
        if connection.execute(same).first() is not None:
            raise PeopleError(f"somebody else is called {name!r}: take another name, or merge the two")
        values |= {"name": name, "name_key": name_key(name)}
        if name != person.name:
            earlier.remember(store, connection, person.id, names=[person.name])
    if values:
        connection.execute(update(PERSON).where(PERSON.c.id == person.id).values(changed_at=time.time(), **values))
    store.changed(connection)
    shown = [key for key in ("name", "role", "consent", "consent_until") if key in values]
    told = ", ".join(f"{key} {values[key]}" for key in shown)
    store.audit(connection, "changed", f"#{person.id} {person.name}: {told or 'notes'}")


def _taken_back(store: Store, connection: Connection, person: int, name: str) -> Earlier | None:
    """Take what somebody of a name was, before they were merged into a person, from that person; return it.

    None where that is not certain: nobody had that name, or several had it.
    """
    merged = {
        number: earlier.earlier_of(store, connection, number)
        for number in earlier.earlier_of(store, connection, person).people
    }
    had = {number for number, was in merged.items() if name_key(name) in map(name_key, was.names)}
    # Whoever they were merged into first has their name, too.
    own = [number for number in had if not merged[number].people & had]
    if len(own) != 1:
        return None
    number = own[0]
    was = merged.pop(number)
    earlier.forget(store, connection, number)
    was = Earlier(names=was.names, people=was.people | {number}, strangers=was.strangers)
    for other in (person, *(merged.keys() - was.people)):
        left = earlier.forget(store, connection, other)
        earlier.remember(
            store, connection, other,
            names=left.names - was.names, people=left.people - was.people, strangers=left.strangers - was.strangers,
        )  # fmt: skip
    return was


def _was_stranger(store: Store, connection: Connection, person: Person, number: int) -> None:
    """What an unknown person was seen doing was a person's."""
    # A track of that number that turned out to be somebody else's stays theirs.
    seen = update(SIGHTING).where(SIGHTING.c.unknown_id == number, SIGHTING.c.person_id.is_(None))
    connection.execute(seen.values(person_id=person.id))
    records.reassign(store, connection, -number, person.id)
    earlier.remember(store, connection, person.id, strangers=[number])
    connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id == number))
    store.audit(connection, "named", f"unknown person {number} is #{person.id} {person.name}")


def _insert_references(store: Store, connection: Connection, person: int, references: Sequence[Reference]) -> None:
    for reference in references:
        connection.execute(
            insert(REFERENCE).values(
                person_id=person,
                embedding=store.seal_embedding(reference.embedding),
                crop=None if reference.crop is None else store.seal_crop(reference.crop),
                model=MODEL,
                source=reference.source[:500],
                quality=reference.quality,
                created_at=time.time(),
            )
        )
    _keep_best(connection, person)


def _keep_best(connection: Connection, person: int) -> None:
    own = select(REFERENCE.c.id).where(REFERENCE.c.person_id == person)
    surplus = own.order_by(REFERENCE.c.quality.desc(), REFERENCE.c.id).offset(MAX_REFERENCES)
    connection.execute(delete(REFERENCE).where(REFERENCE.c.id.in_(connection.execute(surplus).scalars().all())))
