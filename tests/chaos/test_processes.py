"""Processes killed and stopped in turn while all of it runs: only they are replaced, and nobody notices for long."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from common.settings import Config
from tests.chaos.faults import (
    CROWD,
    NAME,
    OFTEN,
    RESUMES_S,
    WRITES_S,
    Hit,
    Victim,
    crowd_data_dir,
    left,
    none_left,
    patience,
)
from tests.chaos.stored import check_alerts, check_people
from tests.receivers import WebServer

ONE_EACH = ("--workers", "detection=1,identity=1,expression=1")  # so that each is missed when it is gone
REMEMBERS = "conductor"  # who is in view is known to this process alone


@pytest.fixture
def ward() -> Iterator[WebServer]:
    """Who is told of alerts."""
    with WebServer() as server:
        yield server


def telling(ward: WebServer) -> dict[str, object]:
    return {"targets": {"ward": ward.address}, "retry_first_s": 0.1}


def check_stored(mien: Victim, ward: WebServer, *before: Victim) -> None:
    """One person, seen and written down as this test has seen her; one episode, told once."""
    check_people(*before, mien)
    assert mien.stored("SELECT count(*) FROM unknown") == [(0,)]
    [episode] = mien.stored("SELECT closed_at FROM episode")
    assert episode == (None,)
    steps = [event for (event,) in mien.stored("SELECT event FROM episode_step ORDER BY serial")]
    assert steps == ["opened"] + ["judged"] * sum(run.judged for run in (*before, mien))
    check_alerts(mien, ward)
    assert len(ward.bodies) == 1 and NAME in ward.bodies[0]["message"]


def hit(mien: Victim, child: str, how: signal.Signals) -> None:
    took_s = mien.hit(child, how)
    allowed_s = RESUMES_S + (WRITES_S if child == "history" else 0.0)
    print(f"{child} after {how.name}: its work went on {took_s:.2f} s after it was ready")
    assert took_s <= allowed_s * patience(), f"{child}: its work went on {took_s:.1f} s after it was ready"


def rounds(mien: Victim, how: signal.Signals) -> None:
    for child in mien.children():
        face = mien.until_known()
        hit(mien, child, how)
        if child == REMEMBERS:
            mien.until_known()  # by identity; under another number, for numbers are never used twice
            assert mien.face().track > face.track  # type: ignore[union-attr]
            continue
        again = mien.until_known()
        assert (again.track, again.identity.name) == (face.track, NAME), child


@pytest.mark.timeout(360)
def test_each_process_killed_in_turn_is_replaced_alone_and_then_all_at_once(config: Config, ward: WebServer) -> None:
    mien = Victim(config, *ONE_EACH, identity=OFTEN, notifications=telling(ward))
    try:
        mien.until_known(120)
        mien.until(lambda: ward.bodies, "the ward is told")
        rounds(mien, signal.SIGKILL)
        track = mien.until_known().track
        check_stored(mien, ward)
        mien.quiet()
        history = seconds_of(mien)
        began_at = time.time()
        mien.process.send_signal(signal.SIGKILL)  # launch.py itself
        mien.process.wait(5)
        mien.hits.append(Hit("launch.py", began_at, time.time()))
        none_left(mien.config)
    finally:
        mien.end_hard()
    carries_on(config, track, history, mien, ward)


def carries_on(config: Config, track: int, history: set[tuple[int, int]], before: Victim, ward: WebServer) -> None:
    """Started again, as a service manager does once all has ended: people, episodes and history go on."""
    with Victim(config, *ONE_EACH, identity=OFTEN, notifications=telling(ward)) as again:
        face = again.until_known(120)
        assert face.track > track
        again.until_said("going on with 1 open episodes")
        again.until(lambda: len(seconds_of(again)) > len(history), "history goes on", 30)
        assert history <= seconds_of(again)
        check_stored(again, ward, before)
        again.quiet()
        assert again.stop() == 0
        assert left(again.config) == []


def seconds_of(mien: Victim) -> set[tuple[int, int]]:
    """What history has: tracks and seconds."""
    return {(track, second) for track, second in mien.stored("SELECT track, second FROM history_second")}


@pytest.mark.timeout(240)
def test_those_that_stand_still_are_replaced_and_so_is_the_page(config: Config, ward: WebServer) -> None:
    with Victim(
        config,
        *ONE_EACH,
        identity=OFTEN,
        notifications=telling(ward),
        dashboard={"enabled": True},
        supervision={"heartbeat_timeout_s": 2.0 * patience()},
    ) as mien:
        mien.until_known(120)
        mien.until(lambda: ward.bodies, "the ward is told")
        mien.until(lambda: mien.told("dashboard", "state") == "running", "the page is there", 60)
        for child, how in (
            ("detection.1", signal.SIGSTOP), ("conductor", signal.SIGSTOP), ("dashboard", signal.SIGKILL),
        ):  # fmt: skip
            mien.until_known()
            hit(mien, child, how)
        assert mien.said().count("gave no sign of life for") == 2
        mien.until_known()
        check_stored(mien, ward)
        mien.quiet()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_process_killed_and_stopped_twice_among_many_people(config: Config, ward: WebServer) -> None:
    crowd_data_dir(config)
    with Victim(config, *ONE_EACH, source="demo:crowd", identity=OFTEN, notifications=telling(ward)) as mien:
        mien.until(lambda: mien.stored("SELECT 1 FROM episode"), "somebody needs a look", 120)
        for how in (signal.SIGKILL, signal.SIGSTOP) * 2:
            for child in mien.children():
                hit(mien, child, how)
            mien.until_named(*CROWD)
        check_people(mien)
        check_alerts(mien, ward)
        mien.quiet()
