"""What is noticed while the store cannot take it: what of it is kept, what is lost, and what is said."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from common import people, strangers
from common.expressions import EXPRESSIONS
from common.history_gather import MAX_SECONDS, Batch, TrackRows
from common.history_rows import Tally
from common.keeper import QUEUED, Answer, Keeper
from common.ledger import Ledger
from common.recall import Enrolment, Sighting, UnknownLook, Withheld
from common.settings import Config
from common.store import Store
from stages.history import HistoryStage
from tests.conftest import stage_environment, wait_until
from tests.people import face_of, reference
from tests.servers import need

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


def test_people_keep_their_names_and_the_start_does_not_wait_while_the_store_is_locked(config: Config) -> None:
    keeper = Keeper(config, "test")
    keeper.numbers_low = keeper.tracks_low = lambda: True
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)]).id
        with store.write():
            began = time.monotonic()
            known = keeper.open()
            assert time.monotonic() - began < 3.0
            assert [member.person for member in known.gallery.members] == [ada]
            assert known.numbers == () and keeper.tracks() == []
        assert wait_until(keeper.tracks, 20, "track ids come when it can be written")
        assert wait_until(keeper.news, 20, "and numbers").numbers
        keeper.close()


def test_numbers_are_there_at_once_where_the_store_can_be_written(config: Config) -> None:
    keeper = Keeper(config, "test")
    keeper.numbers_low = keeper.tracks_low = lambda: True
    assert keeper.open().numbers and keeper.tracks()
    keeper.close()


FULL = """
mount -t tmpfs -o size=4m tmpfs "$0.full" && cp "$0/mien.db" "$0/mien.key" "$0.full" || exit 9
cat /dev/zero > "$0.full/filler" 2> /dev/null
exec "$@"
"""
NAMES = """
import sys
from pathlib import Path
from common import config, keeper
made = config.load(overrides={"storage": {"data_dir": sys.argv[1]}}, environment={})
kept = keeper.Keeper(made, "test")
print([member.name for member in kept.open().gallery.members])
kept.close()
"""


def test_a_full_disk_on_which_nobody_has_the_store_open_yet_takes_nobody_their_name(config: Config) -> None:
    need("unshare")
    data_dir = config.storage.data_dir
    with Store(data_dir) as store:
        people.add(store, "Ada", [reference(1)])
    full = data_dir.with_name(f"{data_dir.name}.full")
    full.mkdir()
    inside = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    command = [*inside, "sh", "-c", FULL, str(data_dir), sys.executable, "-c", NAMES, str(full)]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['Ada']", done.stderr
    assert "people keep their names" in done.stderr


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


def test_more_pictures_of_somebody_are_refused_when_they_show_somebody_else(config: Config, kept: Keeper) -> None:
    def asked(number: int, **how: bool) -> Answer:
        looks = [(face_of(number), CHIP, 0.9)] * 3
        kept.write([Enrolment(request="r", name="Ada", fields={}, looks=looks, again=True, **how)])
        [answer] = wait_until(kept.answers, 10, "whoever asked is answered")
        return answer

    with Store(config.storage.place) as store:
        people.add(store, "Ada", [reference(1)])
        kept.open()
        refused = asked(3)
        assert "somebody else's than Ada's pictures" in (refused.why or "") and "--alike" in (refused.why or "")
        assert asked(1).why is None and asked(3, alike=True).why is None
        kept.close()
        assert people.everybody(store)[0].references == 7


def test_more_pictures_of_somebody_are_refused_when_they_show_another_one_who_is_enrolled(
    config: Config, kept: Keeper
) -> None:
    hers, his = face_of(1), face_of(3)
    his = 0.62 * hers + (his - his @ hers / (hers @ hers) * hers) * 0.5  # not unlike her
    with Store(config.storage.place) as store:
        people.add(store, "Ada", [reference(1)])
        people.add(store, "Bob", [replace(reference(3), embedding=his.astype(np.float32))])
        assert float(np.linalg.norm(his - hers)) < people.STRANGER
        kept.open()
        looks = [(his.astype(np.float32), CHIP, 0.9)] * 3
        kept.write([Enrolment(request="r", name="Ada", fields={}, looks=looks, again=True)])
        [answer] = wait_until(kept.answers, 10, "whoever asked is answered")
        kept.close()
        assert answer.result == {"there": "look", "other": "Bob"}
        assert {person.name: person.references for person in people.everybody(store)} == {"Ada": 1, "Bob": 1}
