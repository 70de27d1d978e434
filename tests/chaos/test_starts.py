"""Started and ended again and again: nothing is left, whenever that is."""

from __future__ import annotations

import random
import socket
import time

import pytest

from common import ring
from common.settings import Config
from tests.chaos.faults import Victim, left, none_left, patience, processes_with

ENDS_WITHIN_S = 3.0


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
        assert left(mien.config) == []
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


def test_whatever_a_run_leaves_is_found(config: Config) -> None:
    assert left(config, killed=True) == []
    shared = ring.ring_dir(config)
    assert shared is not None
    shared.mkdir(mode=0o700)
    try:
        picture = shared / "cam0-00"
        picture.touch()
        with socket.socket() as port, socket.socket(socket.AF_UNIX) as local:
            port.bind(("127.0.0.1", int(config.endpoints.news_in.rsplit(":", 1)[1])))
            local.bind(str(config.run_dir / "news"))
            for listener in (port, local):
                listener.listen()
            found = left(config, killed=True)
        assert len(found) == 3, found
        for place, line in zip((picture, config.endpoints.news_in, config.run_dir / "news"), found, strict=True):
            assert str(place) in line
        picture.unlink()
        assert left(config, killed=True) == []
        assert str(shared) in left(config) and str(config.run_dir / "news") in left(config)
        with pytest.raises(AssertionError, match="cam0-00"):
            picture.touch()
            none_left(config, 0.1)
    finally:
        ring.remove_rings(config)
