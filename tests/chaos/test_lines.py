"""Damaged messages and a camera that comes and goes."""

from __future__ import annotations

import threading
import time

import pytest

from common.settings import Config
from tests.chaos.faults import NAME, Victim
from tests.servers import Server, mjpeg_server

SHARE = 0.01
LINE = ("--only", "bus,conductor,detection,capture", "--workers", "detection=1")  # from a camera to results


@pytest.mark.timeout(300)
def test_one_message_in_a_hundred_damaged_stops_nothing(config: Config) -> None:
    with Victim(config, faults={"CORRUPT__ALL": str(SHARE)}) as mien:
        mien.until_known(120)
        before = mien.pids()
        seen = mien.fresh_results(300, 90)
        shown = [face for result in seen for face in result.faces]
        assert len(shown) > 200
        assert {face.identity.name for face in shown} <= {NAME, None}
        assert sum(face.identity.name == NAME for face in shown) > 0.8 * len(shown)
        assert mien.until_known().identity.name == NAME
        bad = mien.until(lambda: sum(s.bad_messages for s in mien.stats.values()), "bad messages are counted", 20)
        assert bad > 0
        assert mien.pids() == before
        # Nor is anything written down of somebody else.
        mien.until(lambda: mien.stored("SELECT count(*) FROM history_second") > [(5,)], "history is written", 30)
        for table in ("sighting", "history_track"):
            owners = {owner for (owner,) in mien.stored(f"SELECT DISTINCT person_id FROM {table}")}
            assert len(owners - {None}) == 1, table
        mien.quiet()


def flap(camera: Server, times: int) -> None:
    """Let a camera vanish and come back once a second."""
    clock = threading.Event()
    for _ in range(times):
        camera.kill()
        clock.wait(0.5)  # the camera's own pace
        camera.start()
        clock.wait(0.5)


@pytest.mark.parametrize("times", [3, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_camera_that_comes_and_goes_every_second_costs_nothing_but_its_pictures(config: Config, times: int) -> None:
    with mjpeg_server() as camera, Victim(config, *LINE, source=camera.url) as mien:
        mien.fresh_results(10)
        flap(camera, 1)
        mien.fresh_results(10, 60)
        before, descriptors, threads = mien.pids(), mien.descriptors("capture"), counted(mien)
        flapping = threading.Thread(target=flap, args=(camera, times))
        flapping.start()
        while flapping.is_alive():
            mien.read()
        began = time.monotonic()
        mien.until(lambda: mien.states["cam0"].state == "online", "it is told that the camera is there", 30)
        mien.fresh_results(10, 30)
        assert time.monotonic() - began < 20
        assert mien.pids() == before
        mien.until(lambda: mien.descriptors("capture") <= descriptors + 2, "no descriptor is left over", 10)
        mien.until(lambda: counted(mien) <= threads + 1, "no thread is left over", 10)
        mien.quiet()


def counted(mien: Victim) -> int:
    return sum(process.num_threads() for process in mien.processes("capture"))
