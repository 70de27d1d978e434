"""Pausing cameras of a running Mien from outside: the command line, and requests that do not say which one is meant."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from common import people
from common.control import ask
from common.settings import Config
from common.store import Store
from tests.conftest import ROOT, stage_environment
from tests.running import Running

WAIT_S = 60.0


@pytest.fixture
def mien(config: Config) -> Iterator[Running]:
    """Two cameras, and nobody who looks at what they show."""
    with Running(config, "demo", "--only", "bus,capture", cameras={"door": {"source": "demo"}}) as running:
        running.until(lambda: paused(running) == {"cam0": False, "door": False}, "both give pictures", WAIT_S)
        Store(running.config.storage.place).close()  # the command makes none
        yield running


def paused(mien: Running) -> dict[str, bool]:
    return {camera: state.paused for camera, state in mien.states.items() if state.state == "online"}


def launched(mien: Running, *words: str) -> tuple[int, str, str]:
    """Run a command beside it; return its exit code, what it printed, and what it complained of."""
    command = [sys.executable, str(ROOT / "launch.py"), *words, "--config", str(mien.path)]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_pauses_all_cameras_or_one_and_notes_who_did(mien: Running) -> None:
    assert launched(mien, "pause") == (0, "cam0: paused\ndoor: paused\n", "")
    mien.until(lambda: paused(mien) == {"cam0": True, "door": True}, "both are paused")
    assert launched(mien, "resume", "--camera", "door") == (0, "door: goes on\n", "")
    mien.until(lambda: paused(mien) == {"cam0": True, "door": False}, "one goes on")
    code, _, said = launched(mien, "--camera", "yard", "pause")
    assert code == 2 and "--camera yard: there is no such camera; there are cam0, door" in said
    with Store(mien.config.storage.place) as store:
        lines = [(line.who.partition(" ")[0], line.did, line.about) for line in people.audit_log(store)]
    assert ("pause", "pause", "cam0, door") in lines and ("resume", "resume", "door") in lines


def test_where_no_camera_listens_the_command_says_which(config: Config) -> None:
    with Running(config, "demo", "--only", "bus") as mien:
        mien.until(lambda: mien.stats, "the bus works", WAIT_S)
        code, printed, said = launched(mien, "pause")
    assert (code, printed) == (1, "") and "cam0: capture did not answer" in said


def test_a_request_that_names_no_camera_is_asked_which_is_meant_and_changes_none(mien: Running) -> None:
    for do, args in (("source", {"source": "demo:crowd"}), ("pause", {}), ("resume", {})):
        reply = ask(mien.config, "capture", do, timeout_s=30, **args)
        assert not reply.ok and reply.error == "which camera is meant? There are cam0, door"
    assert ask(mien.config, "capture", "pause", timeout_s=30, camera="door").result == {
        "camera": "door",
        "paused": True,
    }
    mien.until(lambda: paused(mien) == {"cam0": False, "door": True}, "only one is paused")
    assert {state.source for state in mien.states.values()} == {"demo"}
