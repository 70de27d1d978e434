"""What keeps things going where no process is needed to see it: clocks, numbers, blind seconds, failing devices."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import openvino
import pytest

from bench.report import Report
from bench.soak import Course, Watched, judged
from common import clock
from common.alerts.rules import Rule
from common.messages import MessageError
from common.tracks import Tracker
from models import runtime
from models.runtime import compile_network
from tests.common.alerts.scripted import HAPPY, SAD, Script, face
from tests.common.test_conductor import Scene
from tests.common.test_tracks import ANNA, BERTA, ids, see
from tests.models.test_runtime import doubling, run

HOUR_S = 3600.0


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_is_set_neither_opens_nor_closes_nor_forgets_anything(jump_s: float) -> None:
    sad = Rule(name="sad", min_duration_s=10, leave_s=5, pause_s=20, cooldown_s=60, escalate_after_s=30)
    offline = Rule(name="offline", about="offline", min_duration_s=30)
    script = Script(sad, offline)
    assert script.play(7, face(SAD)) == []
    script.now += jump_s
    script.desk.shift(jump_s)
    # Seven seconds are counted already: three or four more are enough.
    assert script.play(4, face(SAD)) == ["opened"]
    script.now -= jump_s
    script.desk.shift(-jump_s)
    assert script.play(20, face(SAD)) == []
    assert script.play(15, face(SAD)) == ["escalated"]  # half a minute after it opened, on any clock
    assert script.play(10, face(HAPPY)) == ["closed"]


def test_a_jump_of_the_clock_is_noticed_once_and_its_drift_never(monkeypatch: pytest.MonkeyPatch) -> None:
    off_s = [0.0]
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + off_s[0])
    jumps = clock.Jumps()
    found = []
    for change in (0.0, 0.5, 0.5, -HOUR_S, 0.0, HOUR_S):
        off_s[0] += change
        found.append(round(jumps.seconds()))
    assert found == [0, 0, 0, -3600, 0, 3600]


def test_a_camera_started_again_after_the_clock_was_set_back_is_taken_once_the_old_one_is_silent() -> None:
    scene = Scene()
    scene.frame(5, run=2_000_000)
    with pytest.raises(MessageError, match="older than what is here"):
        scene.frame(0, run=1_000_000)  # the old one may still be there
    for worker in ("detection.a",):
        scene.conductor.gone(worker, scene.now)
    scene.conductor.lines["cam0"].flights.clear()
    scene.now += 1.5
    scene.frame(0, run=1_000_000)
    scene.frame(1, run=1_000_000)
    with pytest.raises(MessageError, match="older than what is here"):
        scene.frame(6, run=2_000_000 - 1_500_000)


def test_seconds_in_which_nobody_looked_end_no_track_but_ask_for_proof() -> None:
    tracker = Tracker()
    for number in range(30):
        see(tracker, number / 30, (100, 100, ANNA))
    [track] = see(tracker, 1.0, (100, 100, ANNA))
    assert track is not None and not track.crossed
    assert ids(see(tracker, 9.0, (104, 100, ANNA))) == [1]
    assert track.crossed  # whoever knows the name asks again
    # Somebody else in that place is somebody else, and nobody waits for ever.
    assert ids(see(tracker, 17.0, (100, 100, BERTA))) == [2]
    assert ids(see(tracker, 40.0, (100, 100, BERTA))) == [3]


class Failing:
    """A request that fails so many times."""

    def __init__(self, request: Any, times: int) -> None:
        self._request, self._times = request, times

    def infer(self, *args: Any, **options: Any) -> Any:
        self._times -= 1
        if self._times >= 0:
            raise RuntimeError("Exception from the device:\nout of memory")
        return self._request.infer(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def test_a_network_that_fails_once_is_tried_once_more(caplog: pytest.LogCaptureFixture) -> None:
    network = compile_network(doubling, key="doubling")
    network._request = Failing(network._request, 1)
    with caplog.at_level(logging.WARNING):
        assert run(network) == [0, 2, 4, 6]
    assert caplog.messages == ["the network failed on the CPU (out of memory): trying once more"]


def test_a_device_that_fails_at_run_time_leaves_the_work_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A stand-in for a GPU, which no machine here has: the network is compiled for the CPU under its name.
    def on_stand_in(build: Any, settings: Any, on_cpu: Any) -> runtime.Network:
        compiled = openvino.Core().compile_model(build(), "CPU")
        return runtime.Network(compiled, device="GPU", precision="f32", otherwise=on_cpu)

    monkeypatch.setattr(runtime, "_compile_on_gpu", on_stand_in)
    network = compile_network(doubling, key="doubling", device="GPU")
    assert network.device == "GPU" and run(network) == [0, 2, 4, 6]
    network._request = Failing(network._request, 1000)
    with caplog.at_level(logging.WARNING):
        assert run(network) == [0, 2, 4, 6]
    assert caplog.messages == ["the network failed on the GPU, going on with the CPU: out of memory"]
    assert network.device == "CPU" and run(network) == [0, 2, 4, 6]


def course(rise_mb_h: float, hours: float, looks: int = 200) -> Course:
    """A process that grows so, with an allocator's ups and downs."""
    chance = np.random.default_rng(3)
    at_s = [hours * 3600 * number / looks for number in range(looks)]
    memory = [200 + rise_mb_h * at / 3600 + float(chance.normal(0, 0.3)) for at in at_s]
    return Course(1, at_s, memory, [20] * looks, [3] * looks)


@pytest.mark.parametrize(("rise_mb_h", "hours", "grows"), [(0.2, 8, False), (3, 8, True), (5, 0.01, False)])
def test_the_soak_calls_growth_what_a_run_of_its_length_can_tell(rise_mb_h: float, hours: float, grows: bool) -> None:
    watched = Watched(courses={"identity.1": course(rise_mb_h, hours)})
    watched.latency = [(at, 30.0, 40.0) for at in watched.courses["identity.1"].at_s]
    wrong = judged(Report("soak", "made up"), watched, 0.0)
    assert bool(wrong) == grows, wrong


def test_the_soak_tells_descriptors_that_are_left_over_and_processes_that_were_replaced() -> None:
    leaky = course(0, 8)
    leaky.descriptors = [20 + number // 20 for number in range(200)]
    watched = Watched(courses={"capture.cam0": leaky}, replaced=["bus"])
    watched.latency = [(at, 30.0, 40.0) for at in leaky.at_s]
    wrong = judged(Report("soak", "made up"), watched, 0.0)
    assert wrong == [
        "bus was replaced",
        "capture.cam0 has 5 descriptors more in the second half than in the first",
    ]
