"""The conductor's keeper: a thread between its memory and the store, so that its loop never waits for a disk.

It looks for changes of people every half second, hands over a new gallery when there are some, writes sightings and
strangers down a few times a second, and deletes what has been kept for long enough.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from common import calibration, jpeg, people
from common.config import Config
from common.encryption import KeyProblem
from common.gallery import Gallery
from common.people import PeopleError, Reference
from common.recall import Enrolment, Event, Sighting, Snapshot, UnknownLook
from common.schema import PERSON, SIGHTING, UNKNOWN, UNKNOWN_CROP
from common.store import Store, StoreError, set_meta
from common.unknown import Unknown

LOOK_EVERY_S = 0.5
WRITE_EVERY_S = 0.25
SWEEP_EVERY_S = 600.0
QUEUED = 50_000  # events that may wait for the disk; what comes beyond that is counted and lost
BLOCK = 100  # numbers of strangers reserved at once
CROPS = 5  # of a stranger
CROP_EVERY_S = 2.0  # between two crops of a stranger
CROP_QUALITY = 92
STRANGERS = "strangers"  # setting: how many strangers were new so far; other conductors see by it that there is one

log = logging.getLogger("mien.keeper")

Answer = tuple[str, str | None, str | None]  # request, name of the enrolled person, or why not


class Keeper:
    """Reads people from the store and writes to it what the conductor notices, in a thread of its own.

    Args:
        who: the process, as the audit log names it.
    """

    def __init__(self, config: Config, who: str) -> None:
        self._config = config
        self._who = who
        self._events: queue.Queue[Event] = queue.Queue(QUEUED)
        self._snapshots: queue.SimpleQueue[Snapshot] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._look_now = threading.Event()
        self._thread: threading.Thread | None = None
        self._store: Store | None = None
        self._seen = -1
        self._gallery = Gallery()
        self._strangers: bytes | None = None  # how often there was a new stranger, when last looked at
        self._expires = float("inf")
        self._crop_at: dict[int, float] = {}
        self._next_sweep = 0.0
        self._complained = 0.0
        self.lost = 0
        self.written = 0
        self.numbers_low: Callable[[], bool] = lambda: False

    def open(self) -> Snapshot:
        """Open the store and return what it holds; the thread starts.

        Raises:
            StoreError: it cannot be used; the text says what to do.
        """
        self._store = Store(self._config.storage.data_dir, who=self._who)
        try:
            first = self._snapshot(self._store, numbers=True)
        except KeyProblem as error:
            self._store.close()
            raise StoreError(str(error)) from error
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()
        return first

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        self._look_now.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def hint(self) -> None:
        """Somebody says that people have changed: look now."""
        self._look_now.set()

    def write(self, events: list[Event]) -> None:
        """Have these written down. Never waits: what does not fit is counted in ``lost``."""
        for event in events:
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self.lost += 1

    def news(self) -> Snapshot | None:
        """Return the newest state of the store, None if nothing has changed. Never waits."""
        newest = None
        numbers: tuple[int, ...] = ()
        unknown = None
        while not self._snapshots.empty():
            newest = self._snapshots.get()
            numbers += newest.numbers
            unknown = newest.unknown if newest.unknown is not None else unknown
        if newest is None:
            return None
        return Snapshot(gallery=newest.gallery, unknown=unknown, numbers=numbers)

    def answers(self) -> list[Answer]:
        """Return the enrolments that are settled since the last call."""
        settled = []
        while not self._answers.empty():
            settled.append(self._answers.get())
        return settled

    # --- the thread ---

    def _run(self) -> None:
        assert self._store is not None
        waiting: list[Event] = []
        next_look = 0.0
        while True:
            stopping = self._stop.is_set()
            try:
                waiting += self._taken()
                if waiting:
                    self._write(self._store, waiting)
                    waiting = []
                if stopping and self._events.empty():
                    break
                if stopping:
                    continue
                if time.monotonic() >= next_look or self._look_now.is_set():
                    self._look_now.clear()
                    next_look = time.monotonic() + LOOK_EVERY_S
                    self._look(self._store)
            except (StoreError, KeyProblem) as error:
                self._complain(error)
                if stopping:
                    break
                if len(waiting) > QUEUED:
                    self.lost += len(waiting) - QUEUED
                    waiting = waiting[-QUEUED:]
            except Exception as error:
                # A fault here must not end naming: the conductor goes on with the people that it knows.
                log.exception("the keeper cannot go on with %d events: %s", len(waiting), error)
                self.lost += len(waiting)
                waiting = []
                if stopping:
                    break
            self._look_now.wait(WRITE_EVERY_S)
        self._store.close()

    def _taken(self) -> list[Event]:
        events: list[Event] = []
        while len(events) < 5000:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                break
        return events

    def _look(self, store: Store) -> None:
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY_S
            sweep(store, self._config)
        numbers = self.numbers_low()
        changed = store.generation() != self._seen or time.time() >= self._expires
        if numbers or changed or store.setting(STRANGERS) != self._strangers:
            self._snapshots.put(self._snapshot(store, numbers=numbers))

    def _snapshot(self, store: Store, *, numbers: bool) -> Snapshot:
        strangers = store.setting(STRANGERS)
        changed = store.generation() != self._seen or time.time() >= self._expires
        unknown = None
        if changed:
            now = time.time()
            ends = [p.consent_until for p in people.everybody(store) if p.consent_until and p.consent_until > now]
            self._expires = min(ends, default=float("inf"))
            thresholds = calibration.thresholds(store, self._config)
            self._gallery = people.gallery(store, thresholds, index_above=self._config.identity.index_above)
            self._seen = self._gallery.generation
        if changed or strangers != self._strangers:
            unknown = tuple(_load_unknown(store, self._config.identity.most_unknown))
            self._strangers = strangers
        reserved = _reserve(store) if numbers and self._config.identity.remember_unknown else ()
        return Snapshot(gallery=self._gallery, unknown=unknown, numbers=reserved)

    def _write(self, store: Store, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Enrolment):
                self._enrol(store, event)
        sightings = {event.track: event for event in events if isinstance(event, Sighting)}
        looks = [event for event in events if isinstance(event, UnknownLook)]
        if not sightings and not looks:
            return
        with store.write() as connection:
            wanted = {s.person for s in sightings.values() if s.person is not None}
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
                for s in sightings.values()
                # Somebody forgotten a moment ago must not come back by what was noticed before.
                if s.person is None or s.person in there
            ]
            if rows:
                added = insert(SIGHTING)
                new: dict[str, Any] = {key: added.excluded[key] for key in ("person_id", "unknown_id", "end_at")}
                # Who it is now, also where it was somebody else before; the number it had is kept with a late name.
                new["unknown_id"] = func.coalesce(added.excluded.unknown_id, SIGHTING.c.unknown_id)
                connection.execute(added.on_conflict_do_update(index_elements=["track"], set_=new), rows)
            for number in {look.number for look in looks}:
                self._write_unknown(store, connection, [look for look in looks if look.number == number])
        self.written += len(rows)

    def _write_unknown(self, store: Store, connection: Connection, looks: list[UnknownLook]) -> None:
        last = looks[-1]
        row = {
            "id": last.number,
            "embedding": store.seal_embedding(last.embedding),
            "weight": last.weight,
            "model": people.MODEL,
            "first_at": last.first_at,
            "last_at": last.last_at,
            "looks": last.looks,
        }
        if connection.execute(select(UNKNOWN.c.id).where(UNKNOWN.c.id == last.number)).first() is None:
            met = int(store.setting_in(connection, STRANGERS) or b"0")
            store.set_setting(connection, STRANGERS, str(met + 1).encode())
        added = insert(UNKNOWN).values(**row)
        new = {key: row[key] for key in ("embedding", "weight", "last_at", "looks")}
        connection.execute(added.on_conflict_do_update(index_elements=["id"], set_=new))
        for look in looks:
            soon = look.last_at - self._crop_at.get(look.number, 0.0) < CROP_EVERY_S
            if look.chip is None or look.own is None or soon:
                continue
            self._crop_at[look.number] = look.last_at
            crop = {
                "unknown_id": look.number,
                "embedding": store.seal_embedding(look.own),
                "crop": store.seal_crop(_jpeg(look.chip)),
                "quality": look.quality,
                "at": look.last_at,
            }
            connection.execute(insert(UNKNOWN_CROP).values(**crop))
        own = select(UNKNOWN_CROP.c.id).where(UNKNOWN_CROP.c.unknown_id == last.number)
        surplus = own.order_by(UNKNOWN_CROP.c.quality.desc()).offset(CROPS).limit(-1)
        connection.execute(
            delete(UNKNOWN_CROP).where(UNKNOWN_CROP.c.id.in_(connection.execute(surplus).scalars().all()))
        )

    def _enrol(self, store: Store, order: Enrolment) -> None:
        references = [
            Reference(embedding=embedding, crop=_jpeg(chip), source="live picture", quality=quality)
            for embedding, chip, quality in order.looks
        ]
        try:
            person = people.add(store, order.name, references, **order.fields)
        except (PeopleError, StoreError) as error:
            self._answers.put((order.request, None, str(error)))
        else:
            self._answers.put((order.request, f"#{person.id} {person.name}, {len(references)} pictures", None))
            self._look_now.set()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complained:
            self._complained = time.monotonic() + 10.0
            log.warning("the store cannot be used at the moment, what is noticed waits: %s", error)


def sweep(store: Store, config: Config, *, at: float | None = None) -> dict[str, int]:
    """Delete what has been kept for long enough; returns how many rows of what."""
    now, privacy = time.time() if at is None else at, config.privacy
    day = 86400.0
    wanted = {
        "sightings": delete(SIGHTING).where(SIGHTING.c.end_at < now - privacy.sighting_days * day),
        "unknown people": delete(UNKNOWN).where(UNKNOWN.c.last_at < now - privacy.unknown_days * day),
        "crops": delete(UNKNOWN_CROP).where(UNKNOWN_CROP.c.at < now - privacy.unknown_crop_days * day),
    }
    with store.write() as connection:
        done = {what: connection.execute(statement).rowcount for what, statement in wanted.items()}
        newest = select(UNKNOWN.c.id).order_by(UNKNOWN.c.last_at.desc()).offset(config.identity.most_unknown).limit(-1)
        surplus = connection.execute(newest).scalars().all()
        connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id.in_(surplus)))
        done["unknown people"] += len(surplus)
        if any(done.values()):
            told = ", ".join(f"{count} {what}" for what, count in done.items() if count)
            store.audit(connection, "retention", told)
            if done["unknown people"]:
                store.changed(connection)
    return done


def _load_unknown(store: Store, most: int) -> list[Unknown]:
    with store.read() as connection:
        chosen = select(UNKNOWN).where(UNKNOWN.c.model == people.MODEL).order_by(UNKNOWN.c.last_at.desc()).limit(most)
        rows = connection.execute(chosen).all()
    return [
        Unknown(
            number=row.id,
            embedding=store.open_embedding(row.embedding),
            weight=row.weight,
            first_at=row.first_at,
            last_at=row.last_at,
            looks=row.looks,
        )
        for row in rows
    ]


def _reserve(store: Store) -> tuple[int, ...]:
    """Return numbers of strangers that nobody else will give."""
    with store.write() as connection:
        first = int(store.setting_in(connection, "next_unknown") or b"1")
        set_meta(connection, "next_unknown", str(first + BLOCK).encode())
    return tuple(range(first, first + BLOCK))


def _jpeg(chip: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return jpeg.encode(np.asarray(cv2.cvtColor(chip, cv2.COLOR_RGB2BGR), np.uint8), CROP_QUALITY)
