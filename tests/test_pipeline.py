"""The whole line on real video: from a source to results that somebody sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from common import control
from common.expressions import EXPRESSIONS
from common.media import sample
from common.messages import Result, Sample
from common.news import NewsReader
from common.settings import Config
from tests.conftest import ROOT, end, stage_environment
from tests.running import Running


def test_a_person_on_video_gets_one_lasting_track_a_name_status_and_an_expression(config: Config) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(5)

        def judged() -> list[Result]:
            return [r for r in mien.results if r.faces and r.faces[0].expression.status == "ok"]

        mien.until(lambda: len(judged()) >= 20, "20 judged frames", 60)
        mien.until(lambda: mien.results[-1].faces[0].identity.status == "unknown", "the name settles")
        numbers = [result.seq for result in mien.results]
        assert numbers == sorted(set(numbers))
        assert {face.track for result in mien.results for face in result.faces} == {1}
        for result in judged():
            [face] = result.faces
            assert result.analysed and result.latency_ms > 0 and (result.width, result.height) == (640, 360)
            assert face.expression.label in EXPRESSIONS
            x, y, width, height = face.box
            assert x >= 0 and y >= 0 and x + width <= 640 and y + height <= 360
            if face.expression.probabilities is not None:
                assert sum(face.expression.probabilities.model_dump().values()) == pytest.approx(1, abs=1e-3)


def test_samples_are_results_and_at_most_ten_a_second(config: Config) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(5)
        reader, samples = NewsReader(mien.config, ("samples.",)), []

        def sampled() -> bool:
            samples.extend(message for _, message in reader.read() if isinstance(message, Sample))
            return len(samples) >= 30

        try:
            mien.until(sampled, "thirty samples")
            mien.until(lambda: mien.results[-1].seq >= samples[-1].seq, "their results")
        finally:
            reader.close()
        results = {result.seq: result.faces for result in mien.results}
        assert all(results[one.seq] == one.faces for one in samples)
        assert (len(samples) - 1) / (samples[-1].at - samples[0].at) < 10.5
        assert [one.n for one in samples] == list(range(samples[0].n, samples[0].n + len(samples)))


def test_a_killed_worker_is_replaced_alone_and_the_results_go_on(config: Config) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(5)
        before = {stage: [p.pid for p in mien.processes(stage)] for stage in ("detection", "expression", "conductor")}
        os.kill(before["detection"][0], signal.SIGKILL)
        os.kill(before["expression"][0], signal.SIGKILL)
        mien.until(lambda: len(mien.processes("detection")) == 2, "another detection worker")
        mien.until(lambda: mien.processes("expression"), "another expression worker")

        def judged_again() -> bool:
            faces = mien.results[-1].faces
            return bool(faces) and faces[0].expression.probabilities is not None

        mien.fresh_results(10)
        mien.until(judged_again, "expressions come again", 60)
        assert [p.pid for p in mien.processes("conductor")] == before["conductor"]
        assert before["detection"][1] in [p.pid for p in mien.processes("detection")]
        assert mien.results[-1].faces[0].track == 1
        told = subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), "status", "--once", "--config", str(mien.path)],
            env=stage_environment(COLUMNS="200"), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        [line] = [line for line in told.stdout.splitlines() if "detection.1" in line]
        assert " 1 " in line, told.stdout


def test_a_worker_started_by_hand_joins_and_gets_work(config: Config) -> None:
    slow = {"input_long_side": 1280, "adapt_input": False}  # one worker alone must not be quick enough
    with Running(config, "demo:crowd", "--workers", "detection=1", detection=slow) as mien:
        mien.fresh_results(3)
        command = [sys.executable, "-m", "stages.detection", "--config", str(mien.path)]
        worker = subprocess.Popen(command, env=stage_environment(), stdin=subprocess.DEVNULL)
        try:

            def works() -> bool:
                return any(name.endswith(f".{worker.pid}") and stats.in_s > 0 for name, stats in mien.stats.items())

            mien.until(works, "the worker gets jobs", 60)
        finally:
            assert end(worker) == 0


def test_the_source_can_be_changed_while_it_runs_and_a_wrong_one_changes_nothing(config: Config) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(3)
        reply = control.ask(mien.config, "capture", "source", camera="cam0", source="nonsense.xyz")
        assert not reply.ok and "nonsense.xyz" in (reply.error or "")
        assert mien.fresh_results(3)[-1].width == 640
        photo = str(sample("five_people.jpg"))
        reply = control.ask(mien.config, "capture", "source", timeout_s=30, camera="cam0", source=photo)
        assert reply.ok, reply.error
        result = mien.until(
            lambda: next((r for r in mien.results if r.name == "five_people.jpg"), None), "the photo's result", 30
        )
        assert len(result.faces) == 5
        assert not {face.track for face in result.faces} & {1}
        assert all(f.identity.status == "unknown" and f.expression.status == "ok" for f in result.faces)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (4320, 7680, 3), (200, 300), (200, 300, 4)], ids=["1x1", "8K", "grey", "RGBA"]
)
def test_pictures_of_any_kind_pass(config: Config, tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "picture.png"
    picture = np.random.default_rng(1).integers(0, 255, (*shape[:1], 1, *shape[2:]), np.uint8)
    assert cv2.imwrite(str(path), np.ascontiguousarray(np.broadcast_to(picture, shape)))
    with Running(config, str(path)) as mien:
        [result] = mien.fresh_results(1)
        assert (result.height, result.width, result.analysed) == (shape[0], shape[1], True)
        mien.until(lambda: mien.states["cam0"].state == "ended", "the end is said")


def test_a_picture_folder_gives_each_picture_in_name_order(config: Config, tmp_path: Path) -> None:
    for name, original in (("b.jpg", "obama.jpg"), ("a.jpg", "biden.jpg"), ("c.jpg", "five_people.jpg")):
        (tmp_path / name).write_bytes(sample(original).read_bytes())
    with Running(config, str(tmp_path)) as mien:
        results = mien.fresh_results(3)
        assert [(r.seq, r.name, len(r.faces)) for r in results] == [(0, "a.jpg", 1), (1, "b.jpg", 1), (2, "c.jpg", 5)]
        tracks = [face.track for result in results for face in result.faces]
        assert len(set(tracks)) == 7
