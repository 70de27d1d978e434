"""Started and ended again and again: nothing is left, whenever that is."""

from __future__ import annotations

import random
import socket
import time

import pytest

from common import ring
from common.settings import Config
from tests.chaos.faults import Victim, patience, processes_with

ENDS_WITHIN_S = 3.0


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
        assert took_s <= ENDS_WITHIN_S * patience(), f"{took_s:.1f} s\n{mien.said()[-3000:]}"
        assert left(mien) == []
        assert "Traceback" not in mien.said(), mien.said()[-3000:]


@pytest.mark.timeout(240)
def test_started_and_ended_at_any_moment_nothing_is_left(config: Config) -> None:
    for moment in (0.0, 1.0):
        start_and_end(config, moment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_starts_and_ends(config: Config) -> None:
    chance = random.Random(7)
    for number in range(100):
        start_and_end(config, 1.0 if number % 4 == 0 else chance.random())
