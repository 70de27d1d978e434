"""Started and ended again and again: nothing is left, and what was known is known again."""

from __future__ import annotations

import random
import signal
import socket
import time

import pytest

from common import ring
from common.config import Config
from common.ledger import Ledger
from tests.chaos.faults import NAME, Victim, none_left, processes_with

ENDS_WITHIN_S = 3.0
RESTARTS_WITHIN = 5  # tries, a second apart, as a service manager makes them


def left(mien: Victim) -> list[str]:
    """What a run that has ended has left behind."""
    config = mien.config
    found = [f"process {process.pid}" for process in processes_with(str(config.run_dir / "config.json"))]
    found += [str(path) for path in config.run_dir.iterdir()] if config.run_dir.exists() else []
    shared = ring.ring_dir(config)
    found += [str(shared)] if shared is not None and shared.exists() else []
    for endpoint in (config.endpoints.news_in, config.endpoints.news_out, config.endpoints.previews):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))) == 0:
                found.append(endpoint)
    return found


def start_and_end(config: Config, moment: float) -> None:
    """Start all of it and end it: at 0 as soon as something runs, at 1 when results have come."""
    with Victim(config) as mien:
        if moment >= 1:
            mien.fresh_results(3)
        else:
            deadline = time.monotonic() + moment * 4
            mien.until(lambda: len(processes_with(str(mien.config.run_dir))) > 2, "something runs")
            mien.until(lambda: time.monotonic() >= deadline, "the moment comes")
        began = time.monotonic()
        code = mien.stop()
        took_s = time.monotonic() - began
        assert code == 0, mien.said()[-3000:]
        assert took_s <= ENDS_WITHIN_S, f"{took_s:.1f} s\n{mien.said()[-3000:]}"
        assert left(mien) == []
        assert "Traceback" not in mien.said(), mien.said()[-3000:]


def test_started_and_ended_at_any_moment_nothing_is_left(config: Config) -> None:
    for moment in (0.0, 0.3, 1.0):
        start_and_end(config, moment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_starts_and_ends(config: Config) -> None:
    chance = random.Random(7)
    for number in range(100):
        start_and_end(config, 1.0 if number % 4 == 0 else chance.random())


def test_killed_as_a_whole_it_ends_cleanly_and_a_second_start_carries_on(config: Config) -> None:
    first = Victim(config)
    try:
        track = first.until_known(120).track
        with Ledger(first.config.storage.data_dir) as ledger:

            def told(sql: str) -> list[tuple[object, ...]]:
                with ledger.read() as connection:
                    return [tuple(row) for row in connection.execute(sql).fetchall()]

            first.until(lambda: told("SELECT id FROM episode"), "an episode opens", 60)
            first.until(lambda: told("SELECT second FROM history_second"), "history is written", 30)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(5)
            before = told("SELECT track, second FROM history_second")
            none_left(first.config.run_dir)
            second = Victim(config)
            tries = 1
            while second.process.poll() is not None and tries < RESTARTS_WITHIN:
                second, tries = Victim(config), tries + 1
            with second:
                face = second.until_known(120)
                assert face.track > track and face.identity.name == NAME
                second.until_said("going on with 1 open episodes")
                assert told("SELECT id, closed_at FROM episode") == [(1, None)]
                second.until(lambda: len(told("SELECT second FROM history_second")) > len(before), "history goes on")
                assert set(before) <= set(told("SELECT track, second FROM history_second"))
                assert told("SELECT name FROM person") == [(NAME,)]
                second.quiet()
            assert left(second) == []
    finally:
        first._reader.close()
        if first.process.poll() is None:
            first.process.kill()
            first.process.wait(5)
