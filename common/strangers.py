"""Strangers as the store has them: their numbers, means and best crops."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, delete, func, insert, or_, select

from common.encryption import KeyProblem
from common.recall import UnknownLook, Withheld
from common.schema import SIGHTING, UNKNOWN, UNKNOWN_CROP
from common.store import Store, insert_or_update, set_meta
from common.unknown import Unknown

log = logging.getLogger(__name__)

MODEL = "dlib_resnet_v1 mirrored"  # what made the embeddings; those of another network do not compare
BLOCK = 100  # numbers of strangers reserved at once
CROPS = 5  # of a stranger
CROP_EVERY_S = 2.0  # between two crops of a stranger
CROP_QUALITY = 92
MET = "strangers"  # setting: how many strangers were new so far; other conductors see by it that there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """An unknown person, as the store has them; unix seconds."""

    number: int
    first_at: float
    last_at: float
    looks: int
    crops: int


def unknown_people(store: Store) -> list[Stranger]:
    """Return the unknown people that are kept, last seen first."""
    crops = select(func.count()).where(UNKNOWN_CROP.c.unknown_id == UNKNOWN.c.id).scalar_subquery().label("crops")
    with store.read() as connection:
        rows = connection.execute(select(UNKNOWN, crops).order_by(UNKNOWN.c.last_at.desc())).all()
    return [Stranger(number=r.id, first_at=r.first_at, last_at=r.last_at, looks=r.looks, crops=r.crops) for r in rows]


def load(store: Store, most: int) -> list[Unknown]:
    """Return the strangers seen last."""
    with store.read() as connection:
        chosen = select(UNKNOWN).where(UNKNOWN.c.model == MODEL).order_by(UNKNOWN.c.last_at.desc()).limit(most)
        rows = connection.execute(chosen).all()
    found: list[Unknown] = []
    damaged: list[int] = []
    for row in rows:
        try:
            embedding = store.open_embedding(row.embedding)
        except KeyProblem:  # as in ``people.gallery``
            damaged.append(row.id)
            continue
        found.append(
            Unknown(
                number=row.id,
                embedding=embedding,
                weight=row.weight,
                first_at=row.first_at,
                last_at=row.last_at,
                looks=row.looks,
            )
        )
    if damaged:
        who = ", ".join(f"unknown {number}" for number in sorted(damaged))
        log.error("what is known of %s is damaged in the store and left out: forget them", who)
    return found


def reserve(store: Store) -> tuple[int, ...]:
    """Return numbers of strangers that nobody else will give."""
    with store.write() as connection:
        first = int(store.setting_in(connection, "next_unknown") or b"1")
        set_meta(connection, "next_unknown", str(first + BLOCK).encode())
    return tuple(range(first, first + BLOCK))


class Writer:
    """Writes down looks at strangers, a crop now and then."""

    def __init__(self) -> None:
        self._at: dict[int, float] = {}  # when a stranger's crop was kept last
        self._new: dict[int, float] = {}  # … in the transaction that is not committed yet
        self._there: set[int] = set()  # numbers that have been in the store

    def there(self, numbers: Iterable[int]) -> None:
        """These are in the store, with what was written of them."""
        self._there.update(numbers)
        self._at |= self._new

    def gone(self, connection: Connection, numbers: set[int]) -> set[int]:
        """Return those of some strangers who were in the store and are not any more: named, forgotten, too long ago.

        What was noticed of them just before must not bring them back. The first question of each transaction.
        """
        self._new = {}  # of one that came to nothing
        known = numbers & self._there
        return known - set(connection.execute(select(UNKNOWN.c.id).where(UNKNOWN.c.id.in_(known))).scalars())

    def write(self, store: Store, connection: Connection, looks: list[UnknownLook]) -> None:
        """Write looks at one stranger, oldest first."""
        last = looks[-1]
        row = {
            "id": last.number,
            "embedding": store.seal_embedding(last.embedding),
            "weight": last.weight,
            "model": MODEL,
            "first_at": last.first_at,
            "last_at": last.last_at,
            "looks": last.looks,
        }
        if connection.execute(select(UNKNOWN.c.id).where(UNKNOWN.c.id == last.number)).first() is None:
            met = int(store.setting_in(connection, MET) or b"0")
            store.set_setting(connection, MET, str(met + 1).encode())
        added = insert_or_update(connection, UNKNOWN).values(**row)
        new = {key: row[key] for key in ("embedding", "weight", "last_at", "looks")}
        connection.execute(added.on_conflict_do_update(index_elements=["id"], set_=new))
        for look in looks:
            before = self._new.get(look.number, self._at.get(look.number, 0.0))
            soon = 0 <= look.last_at - before < CROP_EVERY_S  # clocks may be set back
            if look.chip is None or look.own is None or soon:
                continue
            self._new[look.number] = look.last_at
            crop = {
                "unknown_id": look.number,
                "embedding": store.seal_embedding(look.own),
                "crop": store.seal_crop(jpeg_of(look.chip)),
                "quality": look.quality,
                "at": look.last_at,
            }
            connection.execute(insert(UNKNOWN_CROP).values(**crop))
        own = select(UNKNOWN_CROP.c.id).where(UNKNOWN_CROP.c.unknown_id == last.number)
        surplus = own.order_by(UNKNOWN_CROP.c.quality.desc()).offset(CROPS)
        connection.execute(
            delete(UNKNOWN_CROP).where(UNKNOWN_CROP.c.id.in_(connection.execute(surplus).scalars().all()))
        )


def withdraw(store: Store, connection: Connection, event: Withheld) -> None:
    """Delete what was kept of somebody without consent before it was known who they are."""
    others = or_(SIGHTING.c.person_id.is_(None), SIGHTING.c.person_id != event.person)
    connection.execute(delete(SIGHTING).where(SIGHTING.c.track == event.track, others))
    if event.number is None:
        return
    recent = UNKNOWN_CROP.c.unknown_id == event.number, UNKNOWN_CROP.c.at >= event.since
    connection.execute(delete(UNKNOWN_CROP).where(*recent))
    # Whoever had the number before may be somebody else.
    born = delete(UNKNOWN).where(UNKNOWN.c.id == event.number, UNKNOWN.c.first_at >= event.since)
    if connection.execute(born).rowcount:
        store.changed(connection)


def jpeg_of(chip: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Return a chip, (150, 150, 3) uint8 RGB, as it is kept."""
    import cv2  # only here: whoever just reads people (the page) stays 40 MB smaller without

    from common import jpeg

    return jpeg.encode(np.asarray(cv2.cvtColor(chip, cv2.COLOR_RGB2BGR), np.uint8), CROP_QUALITY)
