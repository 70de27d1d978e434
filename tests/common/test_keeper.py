"""What is noticed while the store cannot take it: what of it is kept, what is lost, and what is said."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest

from common import people, strangers
from common.expressions import EXPRESSIONS
from common.history_gather import MAX_SECONDS, Batch, TrackRows
from common.history_rows import Tally
from common.keeper import QUEUED, Keeper
from common.ledger import Ledger
from common.recall import Enrolment, Sighting, UnknownLook, Withheld
from common.settings import Config
from common.store import Store
from stages.history import HistoryStage
from tests.conftest import wait_until
from tests.people import face_of, reference

CHIP = np.full((150, 150, 3), 120, np.uint8)
TOO_LARGE = 2**63  # for a column of any database


def sighting(track: int, person: int | None = None, unknown: int | None = None) -> Sighting:
    now = time.time()
    return Sighting(track=track, camera="cam0", person=person, unknown=unknown, begin_at=now - 5, end_at=now)


def look(number: int, person: int) -> UnknownLook:
    face, now = face_of(person), time.time()
    return UnknownLook(
        number=number, embedding=face, weight=1.0, first_at=now, last_at=now, looks=1, chip=CHIP, own=face, quality=0.8
    )


@pytest.fixture
def kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """A keeper that soon gives up on a store that somebody else is writing to."""
    Store(config.storage.place).close()
    monkeypatch.setattr("common.backend.BUSY_MS", 50)
    return Keeper(config, "test")


def test_what_the_store_does_not_take_is_lost_alone_and_named(
    config: Config, kept: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)]).id
        kept.open()
        kept.write([sighting(7, person=ada), sighting(9, person=ada)])
        wait_until(lambda: len(people.sightings_of(store, ada)) == 2, 5, "they are written")
        kept.write([
            look(4, 7),
            look(TOO_LARGE, 8),
            sighting(11, unknown=4),
            sighting(TOO_LARGE, unknown=5),
            Withheld(track=9, person=None, number=None, since=0.0),  # she has taken her consent back
            sighting(12, person=ada),
            Enrolment(request="r", name="Zoe", fields={}, looks=[(face_of(3), CHIP[:0], 0.9)]),  # no picture at all
        ])  # fmt: skip
        [answer] = wait_until(kept.answers, 10, "whoever asked is answered")
        kept.close()
        assert {seen.track for seen in people.sightings_of(store, ada)} == {7, 12}
        assert [seen.track for seen in people.sightings_of(store, unknown=4)] == [11]
        assert [(one.number, one.crops) for one in strangers.unknown_people(store)] == [(4, 1)]
    assert answer.request == "r" and answer.result == {} and "it failed" in (answer.why or "")
    assert kept.lost == 2
    lost = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert len(lost) == 2
    assert f"a look at unknown {TOO_LARGE} cannot be written" in lost[0]
    assert f"the sighting of track {TOO_LARGE} cannot be written" in lost[1]


def test_a_store_that_takes_nothing_is_waited_for_and_nothing_is_lost(config: Config, kept: Keeper) -> None:
    with Store(config.storage.place) as store:
        kept.open()
        with closing(sqlite3.connect(config.storage.data_dir / "mien.db", isolation_level=None)) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON sighting BEGIN SELECT RAISE(ABORT, 'refused'); END")
            kept.write([sighting(track, unknown=1) for track in range(100)])
            wait_until(lambda: kept._complained > 0, 10, "it says that it cannot write")
            other.execute("DROP TRIGGER no")
        wait_until(lambda: len(people.sightings_of(store, unknown=1)) == 100, 10, "all is written after all")
        kept.close()
    assert kept.lost == 0


def test_what_waits_for_a_store_that_is_away_is_bounded_and_what_is_lost_is_said(
    config: Config, kept: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    more = 7_000
    kept.open()
    with Store(config.storage.place) as store:
        with store.write() as connection:
            store.changed(connection)
            track = 0
            # No faster than it takes them over: its queue is bounded, too.
            while track < QUEUED + more:
                kept.write([sighting(track + number, unknown=1) for number in range(1000)])
                track += 1000
                kept.hint()
                wait_until(lambda: kept._events.qsize() < 5000, 20, "they are taken over")
            wait_until(lambda: kept.lost == more, 20, "the oldest are lost")
        wait_until(lambda: kept.written == QUEUED, 30, "the others are written after all")
        kept.close()
        assert {seen.track for seen in people.sightings_of(store, unknown=1)} == set(range(more, track))
    assert kept.lost == more
    assert f"{QUEUED} events wait for the store, which is as many as may" in caplog.text


def test_seconds_of_history_that_wait_are_bounded_and_what_is_lost_is_said(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)]).id
    tally = Tally()
    tally.add([1.0] + [0.0] * (len(EXPRESSIONS) - 1))
    seen, first = tally.packed(), int(time.time()) - 300_000
    seconds = [
        [(second, seen) for second in range(first + at, first + at + 100)] for at in range(0, MAX_SECONDS + 500, 100)
    ]
    waits = Batch(
        rows=[TrackRows(track=n, camera="cam0", owner=(ada, None), seconds=part) for n, part in enumerate(seconds, 1)]
    )
    stage = HistoryStage(config)
    stage.open()
    try:
        with closing(sqlite3.connect(config.storage.data_dir / "mien.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            stage._waiting.add(waits)
            assert not stage._write(time.time())
            assert len(stage._waiting) == MAX_SECONDS
            assert stage.detail()["lost"] == stage.meter.dropped == 500
            assert f"{MAX_SECONDS} seconds of history wait, 500 are lost" in caplog.text
        while stage._write(time.time()):
            pass  # as many at once as may be
        assert stage.detail()["waiting"] == 0
        with Ledger(config.storage.place) as ledger, ledger.read() as connection:
            count, oldest = connection.execute("SELECT count(*), min(second) FROM history_second").fetchone()
        assert (count, oldest) == (MAX_SECONDS, first + 500)
    finally:
        stage.close()
        stage._inbox.close()
        stage.news.close()
