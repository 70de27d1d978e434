"""How a camera's pictures travel, and which source it shows after a restart."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.config import load
from common.control import ask
from common.lifeline import SUPERVISED, WORN_OUT
from common.media import sample
from common.messages import CameraState, Control
from common.news import NewsReader
from common.rundir import held, hold
from common.settings import CameraConfig, Config
from common.transport import opened
from stages.capture import Capture, encoding
from tests.conftest import end, stage_environment, start_stage, wait_until
from tests.running import Running


@pytest.mark.parametrize(
    ("endpoints", "camera", "expected"),
    [
        ({}, {}, "raw"),
        ({"host": "ward-server"}, {}, "jpeg"),
        ({"host": "ward-server"}, {"encoding": "raw"}, "raw"),
        # The camera is beside the conductor, and the workers are not: each picture would cross the net as it is.
        ({"host": "ward-server", "frames": "ipc:///run/mien/frames"}, {}, "jpeg"),
        ({"frames": "tcp://127.0.0.1:5565", "jobs": "tcp://127.0.0.1:5566"}, {}, "raw"),
        ({}, {"encoding": "jpeg"}, "jpeg"),
    ],
)
def test_pictures_are_jpeg_where_any_part_of_their_way_is_between_machines(
    endpoints: dict[str, Any], camera: dict[str, Any], expected: str
) -> None:
    config = load(overrides={"endpoints": endpoints, "cameras": {"door": camera}}, environment={})
    assert encoding(config, "door") == expected


def test_a_source_that_was_chosen_is_kept_when_the_stage_is_killed(
    config: Config, bus: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def started() -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return start_stage("capture", config, "--camera", "cam0", stdout=file, stderr=file)

    first = started()
    try:
        wait_until(lambda: b"demo: online" in log.read_bytes(), 30, "the configured source")
        reply = ask(config, "capture", "source", timeout_s=20, camera="cam0", source=str(sample("man.mp4")))
        assert reply.ok, reply.error
        first.kill()
        first.wait()
        second = started()
        try:
            wait_until(lambda: b"man.mp4: online" in log.read_bytes(), 30, "the chosen source")
        finally:
            end(second)
    finally:
        first.kill()
        first.wait()
    hold(config, "source-cam0", json.dumps(["nowhere.mp4", config.cameras["cam0"].source]))
    third = started()
    try:
        wait_until(lambda: b"demo: online" in log.read_bytes(), 30, "the configured source")
        assert b"the source that was chosen cannot be used any more" in log.read_bytes()
    finally:
        end(third)
    hold(config, "source-cam0", json.dumps([str(sample("man.mp4")), "webcam"]))  # instead of one of then
    fourth = started()
    try:
        wait_until(lambda: b"demo: online" in log.read_bytes(), 30, "the source that is configured now")
    finally:
        end(fourth)


def test_a_paused_camera_stays_so_when_the_stage_is_killed(
    config: Config, bus: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    frames = opened("frames", config.endpoint("frames"), "pull", bind=True)
    process = start_stage("capture", config, "--camera", "cam0")
    try:
        wait_until(lambda: frames.receive(timeout_ms=100), 30, "a picture")
        assert ask(config, "capture", "pause", timeout_s=20, camera="cam0").result == {"camera": "cam0", "paused": True}
        process.kill()
        process.wait()
        with log.open("wb") as file:
            process = start_stage("capture", config, "--camera", "cam0", stdout=file, stderr=file)
        wait_until(lambda: b"still paused" in log.read_bytes(), 30, "it knows")
        while frames.receive(timeout_ms=300):
            pass  # from before
        assert ask(config, "capture", "resume", timeout_s=20, camera="cam0").ok
        wait_until(lambda: frames.receive(timeout_ms=100), 30, "a picture again")
        assert held(config, "paused-cam0") is None
    finally:
        end(process)
        frames.close()


def test_a_paused_camera_stays_so_when_all_is_killed_and_not_when_it_is_ended(config: Config) -> None:
    def paused(mien: Running) -> bool:
        return (
            bool(mien.until(lambda: "cam0" in mien.states, "the camera's state is told")) and mien.states["cam0"].paused
        )

    def run() -> Running:
        return Running(config, "demo", "--only", "bus,capture")

    first = run()
    try:
        assert not paused(first)
        reply = ask(first.config, "capture", "pause", timeout_s=20, camera="cam0")
        assert reply.ok, reply.error
        left = first.processes("capture")
    finally:
        first.process.kill()
        first.process.wait()
        first._reader.close()
    psutil.wait_procs(left, 10)
    shutil.rmtree(first.config.run_dir)  # as when the machine was switched off
    with run() as second:
        assert paused(second)
        assert "mien.capture.cam0 WARNING still paused" in second.said()
    with run() as third:
        assert not paused(third)


HANGING = """
import sys, threading
from common import reader
from stages import capture
class Hanging:
    live, still, may_stand_still = True, False, False
    description, frame_rate, frame_count = "hanging", None, None
    def open(self): threading.Event().wait()
    def read(self): return None
    def close(self): pass
reader.OPEN_LIMIT_S, capture.LEAST_LIFE_S = 0.1, 1.0
make = reader.Reader
capture.Reader = lambda *given, **named: make(*given, make=lambda spec, *, loop, notify: Hanging(), **named)
sys.exit(capture.main(capture.Capture))
"""


@pytest.mark.parametrize("supervised", [True, False])
def test_a_camera_that_hangs_for_good_is_tried_by_a_fresh_process_where_there_will_be_one(
    config: Config, bus: subprocess.Popen[bytes], supervised: bool
) -> None:
    words = {SUPERVISED: "1"} if supervised else {}
    command = [sys.executable, "-c", HANGING, "--config", str(config.run_dir / "config.json"), "--camera", "cam0"]
    log = config.run_dir / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=stage_environment(**words), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=file
        )
    news = NewsReader(config, ("camera.cam0",))
    states: list[CameraState] = []

    def hangs() -> bool:
        states.extend(message for _, message in news.read(timeout_ms=50) if isinstance(message, CameraState))
        return any("and so did 3 attempts before" in (state.reason or "") for state in states)

    try:
        if supervised:
            assert process.wait(30) == WORN_OUT, log.read_text()
            assert "3 attempts before: only a fresh process can try again" in log.read_text()
        else:
            wait_until(hangs, 30, "it is told that it hangs")
            have = len(states)
            wait_until(lambda: hangs() and len(states) >= have + 3, 20, "it goes on")
            assert process.poll() is None
    finally:
        news.close()
        end(process)
        process.stdin.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def capturing(config: Config, source: str) -> Iterator[Capture]:
    """The stage in this process, turned by hand."""
    stage = Capture(config.model_copy(update={"cameras": {"cam0": CameraConfig(source=source)}}))
    try:
        stage.open()
        yield stage
    finally:
        stage.close()
        stage._inbox.close()
        stage.news.close()


def test_a_change_of_source_that_is_done_stays_done_when_the_next_one_fails(config: Config) -> None:
    damaged = config.run_dir / "damaged.mp4"
    damaged.write_bytes(b"no video")
    with capturing(config, str(sample("woman.mp4"))) as stage:
        first, second = (
            Control(sender="test.1", request=digit * 32, do="source", args={"source": source})
            for digit, source in (("1", str(sample("man.mp4"))), ("2", str(damaged)))
        )
        stage._do(first)
        assert stage._reader is not None
        wait_until(lambda: stage._reader.switches == 1, what="the new source is shown")  # type: ignore[union-attr]
        stage._do(second)
        wait_until(lambda: stage.handle(set()) or stage._answered[second.request], what="the second is answered")
        done, failed = (stage._answered[one.request] for one in (first, second))
        assert done is not None and done.ok and "man.mp4" in str(done.result["source"])
        assert failed is not None and "damaged.mp4" in (failed.error or "")
        chosen = held(config, "source-cam0")
        assert chosen is not None and json.loads(chosen)[0] == str(sample("man.mp4"))


def test_the_last_picture_of_a_video_stands_not_alone_though_a_folder_is_shown_by_then(
    config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(sample("obama.jpg"), folder)
    with capturing(config, str(sample("woman.mp4"))) as stage:
        assert stage._reader is not None
        last = stage._reader.take(20)
        stage._reader.switch(str(folder)).result(20)
        first = stage._reader.take(20)
        assert last is not None and first is not None
        assert [stage._framed(taken)[0].still for taken in (last, first)] == [False, True]
