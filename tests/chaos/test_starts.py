"""Started and ended again and again: nothing is left, whenever that is."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from common import ring
from common.settings import Config
from tests.chaos.faults import Victim, left, none_left, patience, processes_with
from tests.conftest import ROOT, stage_environment, wait_until

ENDS_WITHIN_S = 3.0


def store_begun(config: Config) -> bool:
    """The store of an empty data directory is being made, or just was."""
    making = any("common.store" in " ".join(words) for words in command_lines(config))
    return making or (config.storage.data_dir / "mien.db").exists()


def command_lines(config: Config) -> list[list[str]]:
    """Of the processes that have to do with this data directory."""
    found = []
    for process in processes_with(str(config.storage.data_dir)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(process.cmdline())
    return found


def start_and_end(config: Config, moment: float, *, empty: bool = False) -> None:
    """Start all of it and end it: at 0 as soon as something runs, at 1 when results have come.

    With an empty data directory: as soon as the store is being made, whatever the moment.
    """
    with Victim(config, empty=empty) as mien:
        if empty:
            mien.until(lambda: store_begun(mien.config), "the store is made")
        elif moment >= 1:
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
    start_and_end(config, 0.0, empty=True)


@pytest.mark.timeout(240)
def test_killed_while_it_makes_the_store_nothing_is_left(config: Config) -> None:
    mien = Victim(config, empty=True)
    try:
        mien.until(lambda: store_begun(mien.config), "the store is made")
        mien.process.kill()
        mien.process.wait(5)
        none_left(mien.config, 10 * patience())
    finally:
        mien.end_hard()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_while_it_fetches_the_clips_of_the_demo_nothing_is_left(config: Config, how: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "launch.py"), "--headless", "--config", str(config.run_dir / "config.json")]
    log = config.run_dir / "log"
    with socket.socket() as index, log.open("wb") as said:  # one that takes connections and never answers
        index.bind(("127.0.0.1", 0))
        index.listen()
        given = stage_environment(PIP_INDEX_URL=f"http://127.0.0.1:{index.getsockname()[1]}/")
        mien = subprocess.Popen(
            [*command, "--source", "demo", "--run-dir", str(config.run_dir / "run")],
            env=given, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
        try:
            wait_until(lambda: any("download" in words for words in command_lines(config)), 30, "pip fetches")
            mien.send_signal(how)
            code = mien.wait(ENDS_WITHIN_S * patience())
            wait_until(lambda: not command_lines(config), 5 * patience(), "all that was started has ended")
            assert code == (0 if how == signal.SIGTERM else -how), log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            mien.kill()
            mien.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_starts_and_ends(config: Config) -> None:
    chance = random.Random(7)
    for number in range(100):
        start_and_end(config, 1.0 if number % 4 == 0 else chance.random(), empty=number % 5 == 1)


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
        for command, variables in (
            (["-m", "common.store", str(config.storage.data_dir)], {}),
            (["-m", "common.media"], {"MIEN_DATA_DIR": str(config.storage.data_dir)}),
        ):
            idle = [sys.executable, "-c", "input()", *command]
            with subprocess.Popen(idle, stdin=subprocess.PIPE, env=os.environ | variables) as helper:
                wait_until(lambda: left(config, killed=True) == [f"process {helper.pid}"], 10, "the helper is found")
                helper.communicate(b"\n")
        assert str(shared) in left(config) and str(config.run_dir / "news") in left(config)
        with pytest.raises(AssertionError, match="cam0-00"):
            picture.touch()
            none_left(config, 0.1)
    finally:
        ring.remove_rings(config)
