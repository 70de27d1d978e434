"""Sightings: which track was whom, from when to when; as the store has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from common.recall import Sighting
from common.schema import PERSON, SIGHTING
from common.store import Store, insert_or_update


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A track of somebody; unix seconds."""

    track: int
    camera: str
    begin_at: float
    end_at: float


def sightings_of(store: Store, person: int | None = None, *, unknown: int | None = None) -> list[Seen]:
    """Return the tracks of a person (or of an unknown person's number), newest first."""
    own = SIGHTING.c.person_id == person if unknown is None else SIGHTING.c.unknown_id == unknown
    with store.read() as connection:
        rows = connection.execute(select(SIGHTING).where(own).order_by(SIGHTING.c.begin_at.desc())).all()
    return [Seen(track=r.track, camera=r.camera, begin_at=r.begin_at, end_at=r.end_at) for r in rows]


def write(connection: Connection, latest: Sequence[Sighting]) -> int:
    """Write what was noticed, one entry a track; return how many were written."""
    wanted = {s.person for s in latest if s.person is not None}
    there = set(connection.execute(select(PERSON.c.id).where(PERSON.c.id.in_(wanted))).scalars())
    rows = [
        {
            "track": s.track,
            "camera": s.camera,
            "person_id": s.person,
            "unknown_id": s.unknown,
            "begin_at": s.begin_at,
            "end_at": s.end_at,
        }
        for s in latest
        # Somebody forgotten a moment ago must not come back by what was noticed before.
        if s.person is None or s.person in there
    ]
    if rows:
        added = insert_or_update(connection, SIGHTING)
        new: dict[str, Any] = {key: added.excluded[key] for key in ("person_id", "unknown_id", "end_at")}
        # Who it is now, also where it was somebody else before; the number it had is kept with a late name.
        new["unknown_id"] = func.coalesce(added.excluded.unknown_id, SIGHTING.c.unknown_id)
        connection.execute(added.on_conflict_do_update(index_elements=["track"], set_=new), rows)
    return len(rows)
