"""History: gathered, written, asked for, made smaller, moved and forgotten; with a real store."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common import config as configuration
from common import exports, forgetting, history_rows, history_store, history_upkeep, people, schema
from common.expressions import EXPRESSIONS
from common.history_gather import Batch, Gatherer, TrackRows
from common.history_rows import REASONS, Tally
from common.history_store import HistoryError, Subject, add_note, loose_notes, notes, remove_note, ribbon, summary
from common.ledger import VERSION, Ledger, LedgerError
from common.page.ribbon import ABSENT, UNASSESSED, runs
from common.place import Place
from common.settings import Config, StorageConfig
from common.store import Store
from stages import history
from stages.history import HistoryStage
from tests.common.alerts.scripted import (
    ADA,
    BEN,
    HAPPY,
    PENDING,
    SAD,
    STRANGER,
    WITHHELD,
    correction,
    face,
    result,
)
from tests.conftest import wait_until
from tests.people import reference

DAY = 1_790_000_000 // 86400 * 86400
SADNESS = [0.1, 0.0, 0.1, 0.0, 0.7, 0.0, 0.1]


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with Store(place) as made:
        people.add(made, "Zoe", [reference(1)])
        people.add(made, "Yan", [reference(2)])
        people.add(made, "Ada", [reference(3)])
        people.add(made, "Ben", [reference(4)], role="staff")
        yield made


@pytest.fixture
def ledger(store: Store, place: Place) -> Iterator[Ledger]:
    with Ledger(place) as made:
        yield made


def packed(seven: list[float] | None = None, reason: str | None = None) -> bytes:
    tally = Tally()
    tally.add(seven, reason)
    return tally.packed()


def keep(ledger: Ledger, track: int, begin: int, count: int, owner: tuple[int | None, int | None], seen: bytes) -> None:
    rows = TrackRows(track=track, camera="ward", owner=owner, seconds=[(begin + i, seen) for i in range(count)])
    with ledger.write() as connection:
        history_upkeep.write(connection, Batch(rows=[rows]))


def gathered(*batches: Batch) -> dict[int, tuple[tuple[int | None, int | None], list[int]]]:
    """By track: its owner and its seconds, relative to DAY."""
    found: dict[int, tuple[tuple[int | None, int | None], list[int]]] = {}
    for batch in batches:
        for rows in batch.rows:
            before = found.get(rows.track, (rows.owner, []))[1]
            found[rows.track] = (rows.owner, before + [second - DAY for second, _ in rows.seconds])
    return found


# --- rows ---


def test_a_second_keeps_what_was_seen_in_it() -> None:
    tally = Tally()
    for _ in range(15):
        tally.add(SADNESS)
    for reason in ("turned", "turned", "turned", "blurred", "never heard of"):
        tally.add(None, reason)
    assert len(tally.packed()) == 15
    steps = history_rows.seconds([DAY], [tally.packed()])
    assert steps.assessed_s[0] == pytest.approx(0.75)
    assert steps.probabilities[0] == pytest.approx(SADNESS, abs=1 / 500)
    assert steps.dominant_s[0][EXPRESSIONS.index("sad")] == pytest.approx(0.75)
    reasons = dict(zip(REASONS, steps.reasons_s[0].tolist(), strict=True))
    assert reasons["turned"] == pytest.approx(0.15)
    assert reasons["blurred"] == reasons["other"] == pytest.approx(0.05)


def test_minutes_say_what_their_seconds_said() -> None:
    at = [DAY + i for i in range(90)]
    seen = [packed(SADNESS) if i % 3 else packed(None, "dark") for i in range(90)]
    minutes = history_rows.gathered((history_rows.seconds(at, seen),), 60)
    rows = history_rows.packed_minutes(minutes)
    back = history_rows.minutes([minute for minute, _ in rows], [data for _, data in rows])
    assert back.at.tolist() == [DAY, DAY + 60]
    assert back.present_s.tolist() == [60, 30]
    assert back.assessed_s.tolist() == [40, 20]
    assert back.probabilities[0] == pytest.approx(SADNESS, abs=1 / 250)
    assert back.reasons_s[:, REASONS.index("dark")].tolist() == [20, 10]


def test_of_two_cameras_in_one_second_the_better_look_counts() -> None:
    steps = history_rows.seconds([DAY, DAY, DAY + 1], [packed(None, "small"), packed(SADNESS), packed(SADNESS)])
    assert steps.at.tolist() == [DAY, DAY + 1]
    assert steps.assessed_s.tolist() == [1, 1]


# --- gathering ---


def play(gatherer: Gatherer, begin: float, seconds: float, *faces, rate: float = 4.0) -> None:  # type: ignore[no-untyped-def]
    for step in range(round(seconds * rate)):
        at = DAY + begin + step / rate
        gatherer.result(result(at, *faces), at)


def test_one_row_a_person_and_second_once_the_second_is_over() -> None:
    gatherer = Gatherer(60)
    play(gatherer, 0, 3, face(SAD), face(HAPPY, BEN, 18))
    assert gathered(gatherer.batch(DAY + 3.1)) == {17: ((3, None), [0, 1]), 18: ((4, None), [0, 1])}
    assert gathered(gatherer.batch(DAY + 3.2)) == {}
    assert gathered(gatherer.batch(DAY + 4.5)) == {17: ((3, None), [2]), 18: ((4, None), [2])}


def test_what_was_seen_before_the_name_was_found_is_filled_in() -> None:
    gatherer = Gatherer(60)
    play(gatherer, 0, 5, face(SAD, PENDING))
    assert gathered(gatherer.batch(DAY + 10)) == {}
    play(gatherer, 5, 1, face(SAD, ADA))
    assert gathered(gatherer.batch(DAY + 10)) == {17: ((3, None), [0, 1, 2, 3, 4, 5])}


@pytest.mark.parametrize("at_once", [True, False], ids=["both waited", "one was written"])
def test_seconds_that_the_clock_tells_twice_keep_what_was_seen_both_times(ledger: Ledger, at_once: bool) -> None:
    joy = [0.0, 0.0, 0.0, 0.9, 0.0, 0.1, 0.0]
    both = [
        TrackRows(track=16, camera="ward", owner=(1, None), seconds=[(DAY + i, seen) for i in range(10)])
        for seen in (packed(SADNESS), packed(joy))
    ]
    for batch in [Batch(rows=both)] if at_once else [Batch(rows=[rows]) for rows in both]:
        with ledger.write() as connection:
            history_upkeep.write(connection, batch)
    with ledger.read() as connection:
        kept = [bytes(row[0]) for row in connection.execute("SELECT seen FROM history_second ORDER BY second")]
    assert len(kept) == 10
    steps = history_rows.seconds(range(DAY, DAY + 10), kept)
    assert steps.probabilities == pytest.approx(np.tile((np.array(SADNESS) + joy) / 2, (10, 1)), abs=0.01)
    assert kept[0][:2] == bytes([2, 2])


def test_who_stays_nobody_is_not_kept() -> None:
    gatherer = Gatherer(60)
    play(gatherer, 0, 5, face(SAD, PENDING))
    gatherer.batch(DAY + 70)
    assert gatherer.nobody == 5
    play(gatherer, 70, 1, face(SAD, ADA))
    assert gathered(gatherer.batch(DAY + 80)) == {17: ((3, None), [70])}


def test_of_somebody_without_consent_nothing_is_kept_and_what_was_goes(ledger: Ledger) -> None:
    gatherer = Gatherer(60)
    play(gatherer, 0, 5, face(SAD, WITHHELD, 20))
    play(gatherer, 0, 5, face(SAD, PENDING, 21))
    play(gatherer, 5, 1, face(SAD, WITHHELD, 21))
    assert gathered(gatherer.batch(DAY + 10)) == {}
    play(gatherer, 0, 5, face(SAD, STRANGER, 22))
    with ledger.write() as connection:
        assert history_upkeep.write(connection, gatherer.batch(DAY + 10)) == 5
    gatherer.correction(correction(22, STRANGER, WITHHELD))
    with ledger.write() as connection:
        history_upkeep.write(connection, gatherer.batch(DAY + 11))
    assert len(history_store.steps(ledger, Subject(unknown=12), DAY, DAY + 100)) == 0


def test_nothing_is_added_of_somebody_whose_consent_has_just_ended(store: Store, ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 5, (3, None), packed(SADNESS))
    people.change(store, "Ada", consent_until=time.time() - 1)
    keep(ledger, 2, DAY + 60, 5, (3, None), packed(SADNESS))
    people.change(store, "Ben", consent="refused")
    keep(ledger, 3, DAY + 60, 5, (4, None), packed(SADNESS))
    assert history_store.steps(ledger, Subject(person=3), DAY, DAY + 100).at.tolist() == list(range(DAY, DAY + 5))
    assert len(history_store.steps(ledger, Subject(person=4), DAY, DAY + 100)) == 0


def test_a_correction_gives_the_whole_track_to_whom_it_shows(ledger: Ledger) -> None:
    gatherer = Gatherer(60)
    play(gatherer, 0, 5, face(SAD, BEN))
    with ledger.write() as connection:
        history_upkeep.write(connection, gatherer.batch(DAY + 10))
    assert len(history_store.steps(ledger, Subject(person=4), DAY, DAY + 100)) == 5
    gatherer.correction(correction(17, BEN, ADA))
    with ledger.write() as connection:
        history_upkeep.write(connection, gatherer.batch(DAY + 11))
    assert len(history_store.steps(ledger, Subject(person=4), DAY, DAY + 100)) == 0
    assert len(history_store.steps(ledger, Subject(person=3), DAY, DAY + 100)) == 5


def test_it_is_known_when_a_camera_watched(ledger: Ledger) -> None:
    gatherer = Gatherer(60)
    for begin in (0, 30):
        play(gatherer, begin, 10)
        with ledger.write() as connection:
            history_upkeep.write(connection, gatherer.batch(DAY + begin + 5))
            history_upkeep.write(connection, gatherer.batch(DAY + begin + 10))
    strip = ribbon(ledger, Subject(person=3), DAY, DAY + 60, step_s=10)
    assert strip.watched_s == pytest.approx([9.75, 0, 0, 9.75, 0, 0])


# --- asking ---


def test_a_day_is_a_ribbon_that_never_calls_unknown_time_neutral(ledger: Ledger) -> None:
    keep(ledger, 1, DAY + 600, 90, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY + 720, 60, (3, None), packed(None, "turned"))
    strip = ribbon(ledger, Subject(person=3), DAY, DAY + 86400)
    assert len(strip) == 1440
    assert strip.dominant[10] == strip.dominant[11] == EXPRESSIONS.index("sad")
    assert (strip.dominant >= 0).sum() == 2
    assert strip.dominant[12] == -1
    assert strip.present_s[10:13].tolist() == [60, 30, 60]
    assert strip.assessed_s[10:13].tolist() == [60, 30, 0]
    assert np.isnan(strip.probabilities[12]).all()
    assert ribbon(ledger, Subject(person=4), DAY, DAY + 86400).present_s.sum() == 0


def test_the_parts_of_a_period_add_up(ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 600, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY + 600, 300, (3, None), packed(None, "turned"))
    with ledger.write() as connection:
        connection.execute(
            "INSERT INTO history_watch (camera, begin_at, end_at) VALUES ('ward', ?, ?)", (DAY, DAY + 1800)
        )
    found = summary(ledger, Subject(person=3), DAY, DAY + 86400, now=DAY + 3600)
    assert (found.period_s, found.offline_s, found.absent_s) == (3600, 1800, 900)
    assert (found.unassessed_s, found.assessed_s) == (300, 600)
    assert found.share == pytest.approx(1 / 6)
    assert found.share_present == pytest.approx(2 / 3)
    assert found.expressions_s["sad"] == 600
    assert found.expressions_s["neutral"] == 0
    assert found.reasons_s == {"turned": 300}
    assert found.mean is not None and found.mean["sad"] == pytest.approx(0.7, abs=0.01)
    with pytest.raises(HistoryError, match="has not begun"):
        summary(ledger, Subject(person=3), DAY + 7200, DAY + 86400, now=DAY + 3600)


def test_whoever_was_seen_is_listed(ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 60, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY, 60, (None, 12), packed(SADNESS))
    keep(ledger, 3, DAY + 86400, 60, (4, None), packed(SADNESS))
    assert history_store.subjects(ledger, DAY, DAY + 3600) == [Subject(person=3), Subject(unknown=12)]


def test_who_does_not_consent_is_not_listed_where_that_counts(store: Store, ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 60, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY, 60, (None, 12), packed(SADNESS))
    for change, there in (({"consent": "refused"}, False), ({"consent": "given", "consent_until": 2000.0}, True)):
        people.change(store, "#3", **change)
        assert (Subject(person=3) in history_store.subjects(ledger, DAY, DAY + 3600, consent_at=1999.0)) == there
    assert history_store.subjects(ledger, DAY, DAY + 3600, consent_at=2000.0) == [Subject(unknown=12)]
    people.change(store, "#3", forever=True)
    assert Subject(person=3) in history_store.subjects(ledger, DAY, DAY + 3600, consent_at=1e12)


def test_notes_are_kept_by_person_and_time(ledger: Ledger) -> None:
    one = add_note(ledger, Subject(person=3), DAY + 60, " visited by her son ", "Kim")
    with ledger.write() as connection:  # as they could once be written
        added = "INSERT INTO note (at, text, who, created_at) VALUES (?, 'ward round', 'Kim', 0)"
        connection.execute(added, (DAY + 70,))
    assert [note.text for note in notes(ledger, DAY, DAY + 3600)] == ["visited by her son", "ward round"]
    assert [note.id for note in notes(ledger, DAY, DAY + 3600, subject=Subject(person=3))] == [one.id]
    assert [(note.subject, note.text) for note in loose_notes(ledger)] == [(None, "ward round")]
    assert loose_notes(ledger, DAY, DAY + 70) == []
    remove_note(ledger, one.id)
    assert len(notes(ledger, DAY, DAY + 3600)) == 1
    with pytest.raises(HistoryError, match="no note"):
        remove_note(ledger, one.id)
    with pytest.raises(HistoryError, match="nobody of the number 99"):
        add_note(ledger, Subject(person=99), DAY, "x", "Kim")
    with pytest.raises(HistoryError, match="1 to 2000 characters"):
        add_note(ledger, Subject(person=3), DAY, "  ", "Kim")


# --- growing old ---


def test_old_seconds_become_minutes_that_say_the_same(ledger: Ledger) -> None:
    keep(ledger, 1, DAY + 30, 100, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY + 130, 30, (3, None), packed(None, "dark"))
    keep(ledger, 3, DAY + 86400, 60, (3, None), packed(SADNESS))
    before = ribbon(ledger, Subject(person=3), DAY, DAY + 600)
    with ledger.write() as connection:
        done = history_upkeep.sweep(connection, DAY + 2 * 86400, second_days=1, minute_days=366)
    assert (done.rolled, done.seconds, done.more) == (2, 130, False)
    after = ribbon(ledger, Subject(person=3), DAY, DAY + 600)
    assert after.dominant.tolist() == before.dominant.tolist()
    assert after.present_s.tolist() == before.present_s.tolist()
    assert after.assessed_s.tolist() == before.assessed_s.tolist()
    assert history_store.is_old(ledger, Subject(person=3), DAY, DAY + 600)
    assert not history_store.is_old(ledger, Subject(person=3), DAY + 86400, DAY + 87000)
    with ledger.write() as connection:
        done = history_upkeep.sweep(connection, DAY + 400 * 86400, second_days=1, minute_days=366)
    assert history_store.subjects(ledger, 0, DAY * 2) == []


@pytest.mark.parametrize("step_s", [1, 5, 7, 30, 60])
def test_a_close_look_at_an_old_day_never_says_that_somebody_was_away_within_a_minute(
    ledger: Ledger, step_s: int
) -> None:
    keep(ledger, 1, DAY, 300, (3, None), packed(SADNESS))
    keep(ledger, 2, DAY + 360, 60, (3, None), packed(None, "dark"))
    with ledger.write() as connection:
        history_upkeep.write(connection, Batch(watches={("ward", float(DAY)): DAY + 900.0}))
        history_upkeep.sweep(connection, DAY + 2 * 86400, second_days=1, minute_days=366)
    near = ribbon(ledger, Subject(person=3), DAY + 120, DAY + 540, step_s=step_s)
    at = np.arange(len(near)) * step_s + 120
    whole = (at + step_s <= 300) | ((at >= 360) & (at + step_s <= 420))
    assert near.present_s[whole] == pytest.approx(step_s)
    assert near.assessed_s[at + step_s <= 300] == pytest.approx(step_s)
    assert set(near.dominant[at + step_s <= 300].tolist()) == {EXPRESSIONS.index("sad")}
    away = ((at >= 300) & (at + step_s <= 360)) | (at >= 420)
    assert not near.present_s[away].any() and set(near.dominant[at >= 300].tolist()) == {-1}
    assert near.present_s.sum() == pytest.approx(240)
    lasted = dict.fromkeys((ABSENT, UNASSESSED, "sad"), 0.0)
    for run in runs(near):
        lasted[run.kind] += run.end - run.begin
    expected = {ABSENT: 180.0, UNASSESSED: 60.0, "sad": 180.0}
    assert lasted == pytest.approx(expected, abs=0 if 60 % step_s == 0 else 3 * step_s)


def test_a_sweep_does_a_bounded_part_at_a_time(ledger: Ledger) -> None:
    for track in range(1, 6):
        keep(ledger, track, DAY + 100 * track, 60, (3, None), packed(SADNESS))
    with ledger.write() as connection:
        done = history_upkeep.roll_up(connection, DAY + 86400, most=100)
    assert (done.rolled, done.more) == (2, True)


# --- after an outage ---


def written(ledger: Ledger) -> dict[int, tuple[int | None, int]]:
    """By track: whose it is in the store, and how many seconds it has there."""
    sql = "SELECT track, person_id, count(*) FROM history_track JOIN history_second USING (track) GROUP BY 1, 2"
    with ledger.read() as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(sql).fetchall()}


def test_what_waited_for_the_store_is_written_a_part_at_a_time_and_all_of_it_once(
    config: Config, place: Place, store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "WRITE_SECONDS", 100)
    monkeypatch.setattr(history, "BUSY_MS", 50)
    storage = StorageConfig(data_dir=place.data_dir, url=place.url)
    stage = HistoryStage(config.model_copy(update={"storage": storage}))
    stage.open()
    waiting = stage._waiting
    begin, looks = int(time.time()) - 600, packed(SADNESS)
    for second in range(begin, begin + 100):  # five people: one row each, second by second
        rows = [
            TrackRows(track=track, camera="ward", owner=(3, None), seconds=[(second, looks)]) for track in range(1, 6)
        ]
        waiting.add(Batch(rows=rows))
    waiting.add(Batch(owners={2: (4, None)}, dropped={5}, watches={("ward", float(begin)): begin + 100.0}))
    counts = [0]

    def turn() -> int:
        stage.handle(set())
        now = sum(count for _, count in written(ledger).values())
        if now != counts[-1]:
            counts.append(now)
        return now

    with store.write():  # another one writes: nothing can be written, and nothing is lost
        assert turn() == 0
    wait_until(lambda: turn() > 0, 10, "the first part")
    with store.write():
        assert turn() == 100
    wait_until(lambda: turn() == 400, 10, "the rest")
    assert max(later - before for before, later in itertools.pairwise(counts)) == 100
    assert written(ledger) == {1: (3, 100), 2: (4, 100), 3: (3, 100), 4: (3, 100)}
    # What waits when the stage ends is written, too.
    for second in range(begin, begin + 250):
        rows = [TrackRows(track=7, camera="ward", owner=(3, None), seconds=[(second, looks)])]
        stage._waiting.add(Batch(rows=rows))
    stage.close()
    stage.news.close()
    stage._inbox.close()
    assert written(ledger)[7] == (3, 250)


def test_of_what_waits_the_last_word_about_a_track_counts(ledger: Ledger) -> None:
    waiting = Batch(rows=[TrackRows(track=1, camera="ward", owner=(3, None), seconds=[(DAY, packed(SADNESS))])])
    waiting.add(Batch(owners={1: (None, None)}))
    later = TrackRows(track=1, camera="ward", owner=(4, None), seconds=[(DAY + i, packed(SADNESS)) for i in (1, 2)])
    waiting.add(Batch(rows=[later]))
    while waiting:
        part, waiting = waiting.split(1)
        with ledger.write() as connection:
            history_upkeep.write(connection, part)
    assert written(ledger) == {1: (4, 3)}


# --- people change ---


def test_merging_and_naming_take_history_episodes_and_notes_along(store: Store, ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 90, (4, None), packed(SADNESS))
    with ledger.write() as connection:
        history_upkeep.roll_up(connection, DAY + 86400)
    keep(ledger, 2, DAY + 60, 30, (3, None), packed(SADNESS))
    with ledger.write() as connection:
        history_upkeep.roll_up(connection, DAY + 86400)
    keep(ledger, 3, DAY + 300, 60, (4, None), packed(SADNESS))
    add_note(ledger, Subject(person=4), DAY + 60, "asleep", "Kim")
    people.merge(store, "Ben", "Ada")
    strip = ribbon(ledger, Subject(person=3), DAY, DAY + 600)
    assert strip.present_s[:6].tolist() == [60, 60, 0, 0, 0, 60]  # a minute has no more than 60 seconds
    assert [note.subject for note in notes(ledger, DAY, DAY + 600)] == [Subject(person=3)]
    assert history_store.subjects(ledger, DAY, DAY + 600) == [Subject(person=3)]


def test_forgetting_somebody_leaves_nothing_of_their_history(store: Store, ledger: Ledger, tmp_path: Path) -> None:
    keep(ledger, 1, DAY, 90, (3, None), packed(SADNESS))
    with ledger.write() as connection:
        history_upkeep.roll_up(connection, DAY + 86400)
        connection.execute(
            "INSERT INTO episode (rule, about, camera, person_id, began_at, opened_at, assessed_s, unassessed_s, text) "
            "VALUES ('negative', 'expression', 'ward', 3, 1, 2, 0, 0, 'Ada has looked sad')"
        )
        connection.execute(
            "INSERT INTO episode_step (episode_id, at, event, message) VALUES (1, 2, 'opened', 'Ada has looked sad')"
        )
        connection.execute("INSERT INTO usual (person_id, learned_s, mean) VALUES (3, 1, '[]')")
    keep(ledger, 2, DAY + 86400, 90, (3, None), packed(SADNESS))
    keep(ledger, 3, DAY + 86400, 90, (4, None), packed(SADNESS))
    add_note(ledger, Subject(person=3), DAY, "Ada sleeps badly", "Kim")
    folder = tmp_path / "exports"
    folder.mkdir()
    both = [Subject(person=3), Subject(person=4)]
    for ending in (".csv", ".jsonl", ".parquet"):
        exports.write(ledger, folder / f"week{ending}", both, DAY, DAY + 2 * 86400, step_s=60)
    (folder / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    config = configuration.load(overrides={"storage": {"data_dir": str(tmp_path)}}, environment={})
    began = time.monotonic()
    done = forgetting.forget(store, config, "Ada")
    assert time.monotonic() - began < 5
    assert (done.history, done.episodes, done.exports) == (3, 1, 3)
    assert history_store.subjects(ledger, 0, DAY * 2) == [Subject(person=4)]
    with ledger.read() as connection:
        for table in ("episode", "episode_step", "note", "usual", "history_minute"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0, table
    for path in (tmp_path / "mien.db", tmp_path / "mien.db-wal"):
        assert not path.exists() or b"Ada sleeps badly" not in path.read_bytes()
    for ending in (".csv", ".jsonl", ".parquet"):
        left = exports._read(folder / f"week{ending}")
        assert left and {row["person"] for row in left} == {4}
    # What was noticed just before does not bring anybody back.
    keep(ledger, 9, DAY, 5, (3, None), packed(SADNESS))
    assert history_store.subjects(ledger, 0, DAY * 2) == [Subject(person=4)]


def test_forgetting_a_stranger_does_too(store: Store, ledger: Ledger, tmp_path: Path) -> None:
    keep(ledger, 1, DAY, 90, (None, 12), packed(SADNESS))
    config = configuration.load(overrides={"storage": {"data_dir": str(tmp_path)}}, environment={})
    forgetting.forget_unknown(store, config, 12)
    assert history_store.subjects(ledger, 0, DAY * 2) == []


def test_strangers_who_are_no_longer_kept_take_their_history_along(store: Store, ledger: Ledger) -> None:
    keep(ledger, 1, DAY, 90, (None, 12), packed(SADNESS))
    with ledger.write() as connection:
        history_upkeep.sweep(connection, DAY + 3 * 86400, second_days=1, minute_days=366)
    assert history_store.subjects(ledger, 0, DAY * 2) == []


# --- the store ---


def test_the_ledger_makes_a_store_that_the_store_can_open(place: Place) -> None:
    with Ledger(place) as ledger:
        assert ledger.generation() == 0
    with Store(place):
        pass
    tables = {table.name for step in schema.STEPS[:VERSION] for table in step[0]}
    assert {"episode", "history_second", "usual"} <= tables


def test_an_older_store_keeps_its_rows(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        people.add(store, "Ada", [reference(3)])
    with sqlite3.connect(tmp_path / "mien.db") as connection:
        for step in reversed(schema.STEPS[2:]):
            for table in reversed(step[0]):
                connection.execute(f"DROP TABLE {table.name}")
        connection.execute("DROP TRIGGER IF EXISTS history_minute_of_person")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with Ledger(tmp_path) as ledger, ledger.read() as reading:
        assert [row["name"] for row in reading.execute("SELECT name FROM person")] == ["Ada"]


def test_a_store_that_somebody_else_writes_is_said_and_nothing_is_half_done(store: Store, place: Place) -> None:
    with Ledger(place, busy_ms=50) as ledger:
        with store.write(), pytest.raises(LedgerError, match=r"cannot be written.*locked"), ledger.write():
            pass
        keep(ledger, 1, DAY, 5, (3, None), packed(SADNESS))
        with pytest.raises(ZeroDivisionError), ledger.write() as connection:
            connection.execute("DELETE FROM history_track")
            _ = 1 / 0
        assert history_store.subjects(ledger, DAY, DAY + 60) == [Subject(person=3)]


def test_it_does_not_load_what_it_saves_memory_by() -> None:
    code = "import sys, stages.alerts, stages.history; print({'sqlalchemy', 'cv2', 'apprise'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "set()", told.stderr
