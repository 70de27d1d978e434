"""A child hears its supervisor through a pipe, shows that it lives through another, and ends when either breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from common.lifeline import SUPERVISED, Lifeline
from common.transport import Poller
from tests.conftest import stage_environment, wait_until

Child = subprocess.Popen[bytes]

OBEDIENT = """
line.say("ready")
while not line.stopping.wait(0.01):
    line.beat()
"""
STUCK = """
line.say("ready")
threading.Event().wait()
"""
PRINTING = """
print("from a library", flush=True)
os.write(1, b"from a C library\\n")
line.say("ready")
line.stopping.wait()
"""
READING = """
line.say("ready")
line.say("read %r" % sys.stdin.read())
line.stopping.wait()
"""
STARTING = """
import subprocess
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
line.say(str(other.pid))
line.stopping.wait()
"""
HELPED = """
import subprocess
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
line.say(str(other.pid))
"""


@pytest.fixture
def start() -> Iterator[object]:
    """Start children with a lifeline; none survives the test."""
    made: list[Child] = []

    def run(body: str, supervised: bool = True, leads: bool = False) -> Child:
        code = f"import os, sys, threading\nfrom common.lifeline import Lifeline\nline = Lifeline()\n{body}"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=stage_environment(**({SUPERVISED: "1"} if supervised else {})),
            start_new_session=leads,
        )  # fmt: skip
        made.append(process)
        return process

    yield run
    for process in made:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait()


def heard(process: Child) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_it_shows_that_it_lives(start: object) -> None:
    process = start(OBEDIENT)  # type: ignore[operator]
    assert [heard(process) for _ in range(4)] == ["ready", "beat", "beat", "beat"]


def test_the_word_stop_ends_it(start: object) -> None:
    process = start(OBEDIENT)  # type: ignore[operator]
    assert heard(process) == "ready"
    process.stdin.write(b"nonsense\nstop\n")
    process.stdin.flush()
    assert process.wait(5) == 0


def test_it_ends_when_its_supervisor_is_gone(start: object) -> None:
    process = start(OBEDIENT)  # type: ignore[operator]
    assert heard(process) == "ready"
    process.stdin.close()
    assert process.wait(5) == 0


def test_it_ends_when_nobody_hears_it_any_more(start: object) -> None:
    process = start(OBEDIENT)  # type: ignore[operator]
    assert heard(process) == "ready"
    process.stdout.close()
    assert process.wait(5) == 0


def test_even_one_that_is_stuck_ends_within_three_seconds(start: object) -> None:
    process = start(STUCK)  # type: ignore[operator]
    assert heard(process) == "ready"
    began = time.monotonic()
    process.stdin.close()
    assert process.wait(5) == 1
    assert 1.5 < time.monotonic() - began < 3.5


def test_what_libraries_print_goes_to_standard_error(start: object) -> None:
    process = start(PRINTING)  # type: ignore[operator]
    assert heard(process) == "ready"
    process.stdin.close()
    assert process.wait(5) == 0
    assert process.stderr.read().split(b"\n")[:2] == [b"from a library", b"from a C library"]


def test_standard_input_is_empty_for_everybody_else(start: object) -> None:
    process = start(READING)  # type: ignore[operator]
    assert [heard(process), heard(process)] == ["ready", "read ''"]


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_what_it_starts_does_not_hold_its_heartbeat_open(start: object) -> None:
    process = start(STARTING)  # type: ignore[operator]
    other = int(heard(process))
    try:
        process.kill()
        process.wait()
        assert process.stdout.read() == b""  # would block if the other process had inherited the pipe
    finally:
        os.kill(other, 9)


@pytest.mark.skipif(os.name != "posix", reason="sessions")
@pytest.mark.parametrize("then", ["line.stopping.wait()\nline.close()", STUCK], ids=["ending by itself", "stuck"])
def test_what_it_has_started_ends_with_it_when_its_supervisor_is_gone(start: object, then: str) -> None:
    process = start(HELPED + then, leads=True)  # type: ignore[operator]
    helper = psutil.Process(int(heard(process)))
    assert helper.is_running()
    process.stdin.close()
    process.wait(5)
    wait_until(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE, 3, "the helper has ended")


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_asked_to_end_it_ends_as_it_likes(start: object) -> None:
    process = start(OBEDIENT + "line.close()", leads=True)  # type: ignore[operator]
    assert heard(process) == "ready"
    process.stdin.write(b"stop\n")
    process.stdin.flush()
    assert process.wait(5) == 0


def test_by_hand_it_does_nothing(start: object) -> None:
    process = start("line.say('ready'); line.beat(); print('own words', flush=True)", supervised=False)  # type: ignore[operator]
    assert heard(process) == "own words"
    assert process.wait(5) == 0
    line = Lifeline()
    assert not line.stopping.is_set()
    line.close()


def test_a_wait_for_sockets_ends_when_the_stage_is_asked_to_end() -> None:
    line = Lifeline()
    poller = Poller()
    poller.wake_by(line.wake)
    assert poller.wait(1) == set()
    threading.Timer(0.05, line.stop).start()
    began = time.monotonic()
    assert poller.wait(10_000) == set()
    assert time.monotonic() - began < 5
    assert line.stopping.is_set()
    line.close()
