"""The conductor's keeper: a thread between its memory and the store, so that its loop never waits for a disk.

It looks for changes of people every second, hands over a new gallery when there are some, writes sightings and
strangers down as often, and deletes what has been kept for long enough.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.exc import DatabaseError

from common import calibration, people, retention, sightings, strangers, trackids
from common.encryption import KeyProblem
from common.gallery import Gallery
from common.people import LooksAlike, NameTaken, PeopleError, Person, Reference
from common.recall import Enrolment, Event, Sighting, Snapshot, UnknownLook, Withheld
from common.settings import Config
from common.store import Store, StoreError, StoreUnavailable

LOOK_EVERY_S = 1.0
NUMBERS_WITHIN_S = 0.5  # at the start; a store that cannot be written gives them later
WAIT_S = 0.25  # for a store that cannot be used at the moment
TRY_EVERY_S = 2.0  # … to open a store that could not be opened
CLOSES_WITHIN_S = 1.5  # the process is ended soon afterwards
SWEEP_EVERY_S = 600.0
PICTURES = 200  # of them with a picture, 66 KB each
REFUSES = 20  # events one after the other, and takes none: then it is the store that is at fault, not what they say
QUEUED = 50_000  # events that may wait for the disk; what comes beyond that is counted and lost

log = logging.getLogger("mien.keeper")


class Answer(NamedTuple):
    """What came of an enrolment.

    Attributes:
        result: ``person``: who is enrolled now. Or ``there``: somebody of that ``name``, or who has that ``look``, is
            enrolled already; of the look ``other`` is their name, None without consent.
        why: nobody is enrolled, for this reason.
    """

    request: str
    result: dict[str, Any]
    why: str | None = None


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
        self._tracks: queue.SimpleQueue[range] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._look_now = threading.Event()
        self._reserved = threading.Event()
        self._thread: threading.Thread | None = None
        self._store: Store | None = None
        self._seen = -1
        self._gallery = Gallery()
        self._met: bytes | None = None  # how often there was a new stranger, when last looked at
        self._crops = strangers.Writer()
        self._next_sweep = 0.0
        self._complained = self._told_lost = 0.0
        self.lost = 0
        self.written = 0
        self.numbers_low: Callable[[], bool] = lambda: False
        self.tracks_low: Callable[[], bool] = lambda: False

    def open(self) -> Snapshot:
        """Open the store and return what it holds; the thread starts.

        Where it cannot be used at the moment, that is said, what can be read of it is returned, and the thread goes on
        trying. Where it can only be read, people have their names; numbers come when it can be written.

        Raises:
            StoreError: it can never be used as it is; the text says what to do.
        """
        try:
            first = self._opened()
        except StoreUnavailable as error:
            first = self._only_read(error)
        except KeyProblem as error:
            raise StoreError(str(error)) from error
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()
        if self._store is not None and self._reserved.wait(NUMBERS_WITHIN_S) and (news := self.news()) is not None:
            unknown = first.unknown if news.unknown is None else news.unknown
            first = Snapshot(gallery=news.gallery, unknown=unknown, numbers=news.numbers)
        return first

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        self._look_now.set()
        if self._thread is not None:
            self._thread.join(CLOSES_WITHIN_S)
            if self._thread.is_alive():
                log.error("the store does not answer: what was noticed last may be lost")

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

    def tracks(self) -> list[range]:
        """Return the track ids that were reserved since the last call. Never waits."""
        reserved = []
        while not self._tracks.empty():
            reserved.append(self._tracks.get())
        return reserved

    def answers(self) -> list[Answer]:
        """Return the enrolments that are settled since the last call."""
        settled = []
        while not self._answers.empty():
            settled.append(self._answers.get())
        return settled

    # --- the thread ---

    def _run(self) -> None:
        waiting: list[Event] = []
        next_look = next_upkeep = next_try = 0.0
        while True:
            stopping = self._stop.is_set()
            try:
                waiting += self._taken()
                self._end_consents()
                if self._store is None:
                    if stopping or time.monotonic() >= next_try:
                        next_try = time.monotonic() + TRY_EVERY_S
                        self._seen, self._met = -1, None  # what could only be read may have been old
                        self._snapshots.put(self._opened())
                        log.warning("the store can be used again: %d events that waited are written now", len(waiting))
                    else:
                        self._refuse(waiting)
                        self._bound(waiting)
                        self._stop.wait(WAIT_S)
                        continue
                assert self._store is not None
                # Before anything is written: a change of people counts also while nothing can be.
                if not stopping and (time.monotonic() >= next_look or self._look_now.is_set()):
                    self._look_now.clear()
                    next_look = time.monotonic() + LOOK_EVERY_S
                    self._look(self._store)
                self._write_all(self._store, waiting)
                if stopping and self._events.empty():
                    break
                if stopping:
                    continue
                if time.monotonic() >= next_upkeep:
                    next_upkeep = time.monotonic() + LOOK_EVERY_S
                    self._upkeep(self._store)
            except (StoreError, KeyProblem) as error:
                self._complain(error)
                if stopping:
                    break
                self._bound(waiting)
                self._stop.wait(WAIT_S)  # a hint to look now would be there all the time
            except Exception as error:
                # A fault here must not end naming: the conductor goes on with the people that it knows.
                log.exception("the keeper failed, %d events wait: %s", len(waiting), error)
                if stopping:
                    break
                self._bound(waiting)
                self._stop.wait(WAIT_S)
                continue  # what failed may be the look: before the next one, what waits is written
            self._look_now.wait(LOOK_EVERY_S)
        if waiting:
            log.error("%d sightings and looks at faces could not be written and are lost", len(waiting))
            self.lost += len(waiting)
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Snapshot:
        store = Store(self._config.storage.place, who=self._who)
        try:
            snapshot = self._snapshot(store)
        except (StoreError, KeyProblem):
            store.close()
            raise
        self._store = store
        return snapshot

    def _only_read(self, why: StoreError) -> Snapshot:
        """What is known of people is read once where nothing can be written; where not even that, nobody is known."""
        place, directory = self._config.storage.place, self._config.storage.data_dir
        known: Snapshot | None = None
        # Where others may be writing at this moment, what is read without a lock may be half of something.
        unused = not os.access(directory, os.W_OK) or (not _is_busy(why) and _has_no_log(place.file))
        if place.url is None and directory.is_dir() and unused:
            try:
                with Store(directory, who=self._who, only_read=True) as store:
                    known = self._snapshot(store)
            except (StoreError, KeyProblem, DatabaseError) as error:
                log.warning("nor can it be read: %s", error)
        if known is None:
            log.error("%s; until it can be used nobody has a name, and what is noticed waits in memory", why)
            return Snapshot(gallery=self._gallery)
        log.error("%s; people keep their names, and what is noticed waits in memory", why)
        return known

    def _refuse(self, waiting: list[Event]) -> None:
        """Whoever enrols somebody waits for an answer, and must not find them enrolled after a refusal."""
        for order in [event for event in waiting if isinstance(event, Enrolment)]:
            waiting.remove(order)
            self._answers.put(Answer(order.request, {}, "the store cannot be used at the moment: try again later"))

    def _bound(self, waiting: list[Event]) -> None:
        """Keep what waits for the disk small: pictures are the first to go, and the oldest events."""
        pictures = [
            place for place, event in enumerate(waiting) if isinstance(event, UnknownLook) and event.chip is not None
        ]
        for place in pictures[:-PICTURES]:
            look = waiting[place]
            assert isinstance(look, UnknownLook)
            waiting[place] = replace(look, chip=None, own=None)
        if len(waiting) > QUEUED:
            self.lost += len(waiting) - QUEUED
            del waiting[:-QUEUED]
            if time.monotonic() >= self._told_lost:
                self._told_lost = time.monotonic() + 10.0
                log.error("%d events wait for the store, which is as many as may: %d are lost", QUEUED, self.lost)

    def _taken(self) -> list[Event]:
        events: list[Event] = []
        while len(events) < 5000:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                break
        return events

    def _end_consents(self) -> None:
        """Whose consent ends is withheld at once, whether the store can be used or not."""
        now = time.time()
        if now >= self._gallery.until:
            self._gallery = self._gallery.at(now)
            self._snapshots.put(Snapshot(gallery=self._gallery))

    def _look(self, store: Store) -> None:
        """Read what has changed; nothing is written."""
        with store.read() as connection:
            generation, met = store.generation_in(connection), store.setting_in(connection, strangers.MET)
        if generation != self._seen or met != self._met:
            self._snapshots.put(self._snapshot(store))

    def _upkeep(self, store: Store) -> None:
        """Have enough numbers at hand, and delete what is old."""
        if self.tracks_low() and self._tracks.empty():
            self._tracks.put(trackids.reserve(store))
        if self.numbers_low() and self._config.identity.remember_unknown:
            self._snapshots.put(Snapshot(gallery=self._gallery, numbers=strangers.reserve(store)))
        self._reserved.set()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY_S
            retention.sweep(store, self._config)

    def _snapshot(self, store: Store) -> Snapshot:
        met = store.setting(strangers.MET)
        changed = store.generation() != self._seen
        gallery, unknown = self._gallery, None
        if changed:
            thresholds = calibration.thresholds(store, self._config)
            gallery = people.gallery(store, thresholds, index_above=self._config.identity.index_above)
        if changed or met != self._met:
            unknown = tuple(strangers.load(store, self._config.identity.most_unknown))
        # Not before all of it is there: what could not be read is to be read again.
        self._gallery, self._seen, self._met = gallery, gallery.generation if changed else self._seen, met
        if unknown is not None:
            self._crops.there(person.number for person in unknown)
        return Snapshot(gallery=self._gallery, unknown=unknown)

    def _write_all(self, store: Store, waiting: list[Event]) -> None:
        """Write what waits in one go, or where something in it is not taken, in ever smaller parts.

        What is not taken by itself either is lost, and it is said what that was. What could not be written now, because
        the store cannot be used, is left in ``waiting``.
        """
        parts, refused, taken = [waiting[:]], list[tuple[Event, Exception]](), False
        waiting.clear()
        while parts:
            part = parts.pop()
            try:
                self._write(store, part)
                taken = True
            except (StoreError, KeyProblem):
                self._wait_again(waiting, refused, [part, *reversed(parts)])
                raise
            except Exception as error:
                if len(part) > 1:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                    continue
                refused.append((part[0], error))
                if len(refused) >= REFUSES and not taken:
                    self._wait_again(waiting, refused, reversed(parts))
                    raise StoreError(f"the store takes nothing that it is given: {error}") from error
        for event, why in refused:
            self.lost += 1
            log.error("%s cannot be written and is lost: %s", _named(event), why, exc_info=why)

    def _wait_again(
        self, waiting: list[Event], refused: list[tuple[Event, Exception]], parts: Iterable[list[Event]]
    ) -> None:
        waiting += [event for event, _ in refused] + [event for part in parts for event in part]

    def _write(self, store: Store, events: list[Event]) -> None:
        for event in [event for event in events if isinstance(event, Enrolment)]:
            events.remove(event)  # it is answered now: what cannot be written below comes again, it must not
            self._enrol(store, event)
        latest = {event.track: event for event in events if isinstance(event, Sighting)}
        looks = [event for event in events if isinstance(event, UnknownLook)]
        withheld = [event for event in events if isinstance(event, Withheld)]
        if not latest and not looks and not withheld:
            return
        with store.write() as connection:
            numbers = {look.number for look in looks}
            gone = self._crops.gone(connection, numbers | {s.unknown for s in latest.values() if s.unknown is not None})
            rows = sightings.write(connection, [s for s in latest.values() if s.unknown not in gone])
            for number in numbers - gone:
                self._crops.write(store, connection, [look for look in looks if look.number == number])
            for one in withheld:
                strangers.withdraw(store, connection, one)
        self._crops.there(numbers - gone)
        self.written += rows

    def _enrol(self, store: Store, order: Enrolment) -> None:
        try:
            references = [
                Reference(embedding=embedding, crop=strangers.jpeg_of(chip), source="live picture", quality=quality)
                for embedding, chip, quality in order.looks
            ]
            person = self._enrolled(store, order, references)
        except NameTaken as error:
            self._answers.put(Answer(order.request, {"there": "name"}, str(error)))
        except LooksAlike as error:
            self._answers.put(Answer(order.request, {"there": "look", "other": error.whom}, str(error)))
        except (PeopleError, StoreError) as error:
            self._answers.put(Answer(order.request, {}, str(error)))
        except Exception as error:  # whoever asked waits for an answer
            log.exception("an enrolment failed: %s", error)
            self._answers.put(Answer(order.request, {}, f"it failed: {type(error).__name__}: {error}"))
        else:
            done = f"#{person.id} {person.name}, {len(references)} pictures"
            self._answers.put(Answer(order.request, {"person": done}))
            self._look_now.set()

    def _enrolled(self, store: Store, order: Enrolment, references: list[Reference]) -> Person:
        looks = [embedding for embedding, _, _ in order.looks]
        there = people.called(store, order.name) if order.again else None
        if there is not None and not order.alike and people.shows_another(self._gallery, there.id, looks):
            raise PeopleError(
                f"this face is somebody else's than {there.name}'s pictures ('alike', on the command line --alike, "
                "adds it all the same)"
            )
        unasked = order.alike or (order.again and there is None)
        alike = None if unasked else people.look_alike(self._gallery, looks, order.name)
        if alike is not None:
            who = "somebody without consent" if alike.withheld else repr(alike.name)
            raise LooksAlike(
                f"this face looks like {who}, enrolled already: under two names nobody would be named any more",
                None if alike.withheld else alike.name,
            )
        if there is not None:
            return people.add_references(store, order.name, references, stranger=order.number)
        return people.add(store, order.name, references, stranger=order.number, **order.fields)

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complained:
            self._complained = time.monotonic() + 10.0
            log.warning("the store cannot be used at the moment, what is noticed waits: %s", error)


def _is_busy(error: BaseException | None) -> bool:
    """Whether it is somebody else who keeps a SQLite file from being used."""
    while error is not None:
        code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return True
        error = error.__context__
    return False


def _has_no_log(file: Path) -> bool:
    """Whether nobody has a SQLite file open, and all of it is in the file: what others write is in a log beside it,
    which takes an index of 32 KiB. A full disk has no room for that.
    """
    log, index = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    return (not log.exists() or not log.stat().st_size) and (not index.exists() or index.stat().st_size < 2**15)


def _named(event: Event) -> str:
    match event:
        case Sighting():
            return f"the sighting of track {event.track}"
        case UnknownLook():
            return f"a look at unknown {event.number}"
        case Withheld():
            return f"that nothing may be kept of track {event.track}"
        case Enrolment():
            return f"the enrolment of track {event.track}"
