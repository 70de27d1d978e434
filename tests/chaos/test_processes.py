"""Processes killed and stopped in turn while all of it runs: only they are replaced, and nobody notices for long."""

from __future__ import annotations

import signal
import time

import pytest

from common.ledger import Ledger
from common.settings import Config
from tests.chaos.faults import NAME, RESUMES_S, Victim, none_left, patience
from tests.chaos.test_starts import left

ONE_EACH = ("--workers", "detection=1,identity=1,expression=1")  # so that each is missed when it is gone
REMEMBERS = "conductor"  # who is in view is known to this process alone


def check_stored(mien: Victim, began: float, conductors: int) -> None:
    """One person, one entry a track, one episode, and no second of anybody twice."""
    with Ledger(mien.config.storage.data_dir) as ledger, ledger.read() as connection:
        sightings = connection.execute("SELECT track, count(*) AS n FROM sighting GROUP BY track").fetchall()
        assert sightings and all(row["n"] == 1 for row in sightings)
        seconds = connection.execute(
            "SELECT second, count(*) AS n FROM history_second s JOIN history_track t ON t.track = s.track "
            "WHERE t.person_id IS NOT NULL GROUP BY second"
        ).fetchall()
        assert sum(row["n"] > 1 for row in seconds) <= conductors  # the second in which one track became another
        assert len(seconds) <= time.time() - began + 1
        assert connection.execute("SELECT count(*) FROM unknown").fetchone()[0] == 0
        episodes = connection.execute("SELECT * FROM episode").fetchall()
        assert len(episodes) == 1 and episodes[0]["closed_at"] is None, [dict(row) for row in episodes]
        steps = connection.execute("SELECT event FROM episode_step").fetchall()
        assert [row["event"] for row in steps] == ["opened"]


def rounds(mien: Victim, how: signal.Signals) -> None:
    for child in mien.children():
        face = mien.until_known()
        took_s = mien.hit(child, how)
        assert took_s <= RESUMES_S * patience(), f"{child}: results came {took_s:.1f} s after it was ready"
        if child == REMEMBERS:
            mien.until_known()  # by identity; under another number, for numbers are never used twice
            assert mien.face().track > face.track  # type: ignore[union-attr]
            continue
        again = mien.until_known()
        assert (again.track, again.identity.name) == (face.track, NAME), child


@pytest.mark.timeout(360)
def test_each_process_killed_in_turn_is_replaced_alone_and_then_all_at_once(config: Config) -> None:
    began = time.time()
    mien = Victim(config, *ONE_EACH)
    try:
        mien.until_known(120)
        rounds(mien, signal.SIGKILL)
        track = mien.until_known().track
        mien.until(lambda: check_stored(mien, began, 1) or True, "all is stored once")
        mien.quiet()
        history = seconds_of(mien)
        mien.process.send_signal(signal.SIGKILL)  # launch.py itself
        mien.process.wait(5)
        none_left(mien.config.run_dir)
    finally:
        mien.end_hard()
    carries_on(config, track, history, began)


def carries_on(config: Config, track: int, history: set[tuple[int, int]], began: float) -> None:
    """Started again, as a service manager does once all has ended: people, episodes and history go on."""
    with Victim(config, *ONE_EACH) as again:
        face = again.until_known(120)
        assert face.track > track
        again.until_said("going on with 1 open episodes")
        again.until(lambda: len(seconds_of(again)) > len(history), "history goes on", 30)
        assert history <= seconds_of(again)
        check_stored(again, began, 2)
        again.quiet()
        assert again.stop() == 0
        assert left(again) == []


def seconds_of(mien: Victim) -> set[tuple[int, int]]:
    """What history has: tracks and seconds."""
    with Ledger(mien.config.storage.data_dir) as ledger, ledger.read() as connection:
        return {(row[0], row[1]) for row in connection.execute("SELECT track, second FROM history_second")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_process_killed_and_stopped_twice(config: Config) -> None:
    began = time.time()
    with Victim(config, *ONE_EACH) as mien:
        mien.until_known(120)
        for how in (signal.SIGKILL, signal.SIGSTOP) * 2:
            rounds(mien, how)
        check_stored(mien, began, 4)
        mien.quiet()
