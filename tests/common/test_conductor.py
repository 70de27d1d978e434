"""The conductor's thinking, fed by hand: order, deadlines, lost workers, and the same output whatever the speed."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from common import clock
from common.conductor import Conductor
from common.config import load
from common.line import Flight
from common.messages import (
    Correction,
    DetectionFinding,
    DetectionJob,
    EndOfSource,
    ExpressionFinding,
    ExpressionJob,
    Frame,
    IdentityFinding,
    IdentityJob,
    Message,
    MessageError,
    Ready,
    Result,
)
from common.settings import Config
from common.tracks import near_known
from stages.conductor import Conductor as ConductorStage

WIDTH, HEIGHT, SIZE = 320, 200, 64
EACH_ONE = ("detection.a", "expression.a", "identity.a")
LOOK = np.eye(48, dtype=np.float32)[0]


class Outbox:
    """Keeps what the conductor decides, as its stage would send it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Any, Sequence[Any]]] = []
        self.results: list[Result] = []
        self.pictures: list[Result] = []
        self.corrections: list[Correction] = []
        self.ends: list[str] = []
        self.missing: list[int | None] = []  # with each end
        self.shown: list[int] = []  # frames, in the order in which they are shown
        self.blurred: list[bool] = []  # whole, with each result

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        self.jobs.append((worker, message, blobs))

    def result(self, result: Result, flight: Flight) -> None:
        self.results.append(result)
        self.blurred.append(flight.blur_all)
        if not flight.overtaken:
            self.shown.append(result.seq)

    def picture(self, result: Result, flight: Flight) -> None:
        self.pictures.append(result)
        self.shown.append(result.seq)

    def correction(self, message: Correction) -> None:
        self.corrections.append(message)

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        self.ends.append(camera)
        self.missing.append(missing)


class Scene:
    """A conductor with workers whose answers are given by hand."""

    def __init__(
        self, workers: Sequence[str] = ("detection.a", "expression.a", "identity.a"), **overrides: Any
    ) -> None:
        self.config: Config = load(overrides=overrides, environment={})
        self.out = Outbox()
        self.conductor = Conductor(self.config, self.out, sender="conductor.test.1")
        self.now = 100.0
        self.side = 60.0  # of the faces that are found, pixels
        for worker in workers:
            self.join(worker)

    def join(self, worker: str) -> None:
        self.conductor.subscribed(worker, self.now)
        pool: Any = worker.split(".")[0]
        self.conductor.ready(Ready(sender=worker, pool=pool, last_job=-1), self.now)

    def frame(self, seq: int, *, camera: str = "cam0", run: int = 1, **fields: Any) -> None:
        values: dict[str, Any] = {"media_time_s": seq / 30, "width": WIDTH, "height": HEIGHT} | fields
        frame = Frame(
            sender="capture.test.1", camera=camera, run=run, seq=seq, captured_at=1e9 + seq,
            age_ms=1.0, clock=clock.reading(int(self.now * 1e9)), **values,
        )  # fmt: skip
        self.conductor.frame(frame, b"pixels", self.now)

    def take(self) -> tuple[str, Any, Sequence[Any]]:
        return self.out.jobs.pop(0)

    def answer(self, worker: str, job: Any, faces: int = 1, label: int = 4) -> None:
        if isinstance(job, DetectionJob):
            self.conductor.detection(*found(worker, job, faces, self.side), self.now)
        elif isinstance(job, ExpressionJob):
            probabilities = np.full((job.count, 7), 0.05, np.float32)
            probabilities[:, label] = 0.7
            finding = ExpressionFinding(sender=worker, job=job.job, work_ms=1.0, count=job.count)
            self.conductor.expression(finding, [probabilities], self.now)
        elif isinstance(job, IdentityJob):
            count = len(job.boxes)
            finding_ = IdentityFinding(sender=worker, job=job.job, work_ms=1.0, count=count)
            blobs = [np.zeros((count, 128), np.float32), np.zeros((count, 150, 150, 3), np.uint8)]
            self.conductor.identity(finding_, blobs, self.now)

    def answer_all(self, faces: int = 1) -> None:
        while self.out.jobs:
            worker, job, _ = self.take()
            self.answer(worker, job, faces)


def found(worker: str, job: DetectionJob, faces: int, side: float = 60.0) -> tuple[DetectionFinding, list[Any]]:
    boxes = np.array([[10 + 90 * face, 20, side, side] for face in range(faces)], np.float32).reshape(-1, 4)
    everyone = range(faces)
    finding = DetectionFinding(
        sender=worker,
        job=job.job,
        work_ms=10.0,
        count=faces,
        crop_size=SIZE,
        reasons=(None,) * faces,
        patch_faces=tuple(everyone),
        patch_shapes=((80, 80),) * faces,
        patch_boxes=((10.0, 10.0, 60.0, 60.0),) * faces,
    )
    blobs: list[Any] = [
        boxes,
        np.full(faces, 0.9, np.float32),
        np.zeros((faces, 5, 2), np.float32),
        np.full((faces, 7), 0.5, np.float32),
        np.tile(LOOK, (faces, 1)),
        np.zeros((faces, SIZE, SIZE), np.uint8),
    ]
    return finding, blobs + [np.zeros((80, 80, 3), np.uint8) for _ in everyone]


def test_a_frame_becomes_a_result_with_a_track_a_name_status_and_an_expression() -> None:
    scene = Scene()
    for seq in range(3):
        scene.frame(seq)
        scene.answer_all()
        scene.now += 1 / 30
    last = scene.out.results[-1]
    assert [result.seq for result in scene.out.results] == [0, 1, 2]
    [face] = last.faces
    assert (face.track, face.identity.status, face.expression.label) == (1, "unknown", "sad")
    assert last.analysed and {"capture", "wait", "detection", "expression"} <= last.timings_ms.keys()


@pytest.mark.parametrize(
    ("every_ms", "fields", "looked_at"),
    [(50, {}, [0, 2, 4, 6]), (0, {}, list(range(8))), (50, {"every_frame": True}, list(range(8)))],
    ids=["live", "live, without a pace", "every frame"],
)
def test_live_expressions_are_looked_at_at_their_pace_and_the_label_stays(
    every_ms: float, fields: dict[str, Any], looked_at: list[int]
) -> None:
    scene = Scene(every_frame=bool(fields), expression={"every_ms": every_ms})
    asked = []
    for seq in range(8):
        scene.frame(seq, **fields)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if isinstance(job, ExpressionJob):
                asked.append(job.seq)
            scene.answer(worker, job)
        scene.now += 1 / 30
    assert asked == looked_at
    assert [result.faces[0].expression.label for result in scene.out.results] == ["sad"] * 8
    own = [result.seq for result in scene.out.results if result.faces[0].expression.probabilities is not None]
    assert own == looked_at


@pytest.mark.parametrize("every_frame", [False, True])
def test_live_a_box_does_not_breathe_and_in_every_frame_mode_it_is_as_found(every_frame: bool) -> None:
    scene = Scene(every_frame=every_frame)
    for seq in range(12):
        scene.side = 60.0 if seq % 2 else 63.0
        scene.frame(seq, every_frame=every_frame)
        scene.answer_all()
        scene.now += 1 / 30
    widths = [result.faces[0].box[2] for result in scene.out.results[6:]]
    if every_frame:
        assert sorted(set(widths)) == [60.0, 63.0]
    else:
        assert max(widths) - min(widths) < 1.0
        assert all(60.0 < width < 63.0 for width in widths)


def test_no_face_is_an_answer_too() -> None:
    scene = Scene()
    scene.frame(0)
    scene.answer_all(faces=0)
    assert scene.out.results[0].analysed and scene.out.results[0].faces == ()


def test_results_come_in_the_order_of_the_frames_whatever_the_order_of_the_findings() -> None:
    scene = Scene(workers=("detection.a", "detection.b", "expression.a", "identity.a"))
    scene.frame(0)
    scene.frame(1)
    first, second = scene.take(), scene.take()
    scene.answer(second[0], second[1])
    scene.answer_all()
    assert scene.out.results == []
    scene.answer(first[0], first[1])
    scene.answer_all()
    assert [result.seq for result in scene.out.results] == [0, 1]
    assert scene.out.results[0].faces[0].track == scene.out.results[1].faces[0].track


def test_live_the_newest_frame_wins_and_the_rest_is_counted() -> None:
    scene = Scene()
    for seq in range(10):
        scene.frame(seq)
    scene.answer_all()
    assert [result.seq for result in scene.out.results] == [0, 9]
    assert scene.conductor.counts.displaced == 8


def test_what_is_missing_after_the_deadline_stays_pending() -> None:
    scene = Scene(workers=("detection.a", "identity.a"))
    scene.frame(0)
    scene.answer_all()
    scene.now += 0.1
    scene.conductor.tick(scene.now)
    assert scene.out.results == []
    scene.now += 0.1
    scene.conductor.tick(scene.now)
    assert scene.out.results[0].faces[0].expression.status == "pending"
    assert scene.conductor.counts.late_expressions == 1


def test_live_a_frame_lost_with_its_worker_holds_nobody_up() -> None:
    scene = Scene(workers=("detection.a", "detection.b", "expression.a", "identity.a"))
    scene.frame(0)
    scene.frame(1)
    first, second = scene.take(), scene.take()
    scene.answer(second[0], second[1])
    scene.conductor.gone(first[0], scene.now)
    scene.answer_all()
    assert [result.seq for result in scene.out.results] == [1]
    assert scene.conductor.counts.lost == 1


def test_every_frame_a_job_of_a_lost_worker_is_given_to_another() -> None:
    scene = Scene(workers=("detection.a", "expression.a", "identity.a"))
    scene.frame(0, every_frame=True)
    worker, _, _ = scene.take()
    scene.conductor.gone(worker, scene.now)
    scene.join("detection.b")
    scene.answer_all()
    assert [(result.seq, result.analysed) for result in scene.out.results] == [(0, True)]


@pytest.mark.parametrize("cameras", [1, 2], ids=["alone", "beside one that has not begun"])
def test_every_frame_the_window_fills_and_empties(cameras: int) -> None:
    sources = {f"cam{number}": {"source": "demo"} for number in range(cameras)}
    scene = Scene(every_frame=True, cameras=sources, pipeline={"window": 4})
    for seq in range(4):
        scene.frame(seq, every_frame=True)
    assert scene.conductor.full()
    scene.answer_all()
    assert not scene.conductor.full()
    assert [result.seq for result in scene.out.results] == [0, 1, 2, 3]


def every_frame_results(seed: int, workers: Sequence[str]) -> list[dict[str, Any]]:
    """Run 40 frames with findings that come back in random order, and return what does not depend on the clock."""
    scene = Scene(workers=workers)
    chance = random.Random(seed)
    sent = 0
    while len(scene.out.results) < 40:
        while sent < 40 and not scene.conductor.full():
            scene.frame(sent, every_frame=True)
            sent += 1
        worker, job, _ = scene.out.jobs.pop(chance.randrange(len(scene.out.jobs)))
        scene.answer(worker, job, faces=1 + job.seq % 3, label=job.seq % 7)
        scene.now += chance.random() * 0.2
    return [result.model_dump(exclude={"at", "latency_ms", "timings_ms", "n"}) for result in scene.out.results]


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_gives_the_same_whatever_the_workers_and_their_speed(seed: int) -> None:
    one = every_frame_results(0, ("detection.a", "expression.a", "identity.a"))
    pools = ("detection", "expression", "identity")
    many = every_frame_results(seed, tuple(f"{pool}.{number}" for pool in pools for number in range(3)))
    assert one == many


def test_still_pictures_carry_nothing_over_and_each_face_gets_its_answers() -> None:
    scene = Scene()
    for seq in range(3):
        scene.frame(seq, still=True, name=f"{seq}.jpg")
    scene.answer_all(faces=2)
    tracks = [face.track for result in scene.out.results for face in result.faces]
    assert tracks == [1, 2, 3, 4, 5, 6]
    for result in scene.out.results:
        for face in result.faces:
            assert (face.identity.status, face.expression.status) == ("unknown", "ok")


def test_of_still_pictures_no_more_are_taken_in_than_are_worked_on() -> None:
    scene = Scene(pipeline={"window": 4})
    for seq in range(4):
        assert not scene.conductor.full()
        scene.frame(seq, still=True)
    assert scene.conductor.full()
    scene.answer_all()
    assert not scene.conductor.full() and len(scene.out.results) == 4


def test_a_folder_does_not_keep_the_frames_of_a_live_camera_waiting_and_loses_nothing() -> None:
    cameras = {"folder": {"source": "demo"}, "live": {"source": "demo"}}
    scene = Scene(cameras=cameras, pipeline={"window": 4})
    for seq in range(20):
        scene.frame(seq, camera="folder", still=True)
        assert not scene.conductor.full()
    scene.frame(0, camera="live")
    scene.answer_all()
    seqs = {camera: [r.seq for r in scene.out.results if r.camera == camera] for camera in cameras}
    assert seqs == {"folder": list(range(20)), "live": [0]}
    large = itertools.count(20)
    while not scene.conductor.full():  # but their memory is bounded
        scene.frame(next(large), camera="folder", still=True, width=4096, height=4096)
    assert 4 <= next(large) - 20 <= 8


@pytest.mark.parametrize("pool", ["detection", "identity", "expression"])
@pytest.mark.parametrize(("errors", "good"), [(1, True), (9, False)])
def test_every_frame_what_failed_is_asked_for_again_but_not_for_ever(pool: str, errors: int, good: bool) -> None:
    kinds = {"detection": DetectionFinding, "identity": IdentityFinding, "expression": ExpressionFinding}
    scene, left = Scene(every_frame=True), errors
    scene.frame(0, every_frame=True)
    while scene.out.jobs:
        worker, job, _ = scene.take()
        if worker.startswith(pool) and left:
            left -= 1
            failed = kinds[pool](sender=worker, job=job.job, work_ms=1.0, count=0, error="out of memory")
            with pytest.raises(MessageError, match="out of memory"):
                getattr(scene.conductor, pool)(failed, [], scene.now)
        else:
            scene.answer(worker, job)
    [result] = scene.out.results
    assert left == (0 if good else errors - 3)
    assert result.analysed == (good or pool != "detection")
    if result.analysed:
        [face] = result.faces
        assert face.expression.status == ("ok" if good or pool != "expression" else "pending")
        assert face.identity.status == ("unknown" if good or pool != "identity" else "pending")


def test_when_the_analysis_stalls_pictures_go_out_without_it() -> None:
    scene = Scene(workers=())
    for seq in range(3):
        scene.frame(seq)
        scene.now += 0.3
    assert [picture.analysed for picture in scene.out.pictures] == [False] * 3
    assert scene.out.results == []


def test_a_new_run_of_the_same_source_keeps_the_tracks_and_another_scene_does_not() -> None:
    scene = Scene()
    scene.frame(0, run=1, scene=7)
    scene.answer_all()
    scene.now += 0.2
    scene.frame(0, run=2, scene=7)
    scene.answer_all()
    scene.now += 0.2
    scene.frame(0, run=3, scene=8)
    scene.answer_all()
    assert [result.faces[0].track for result in scene.out.results] == [1, 1, 2]


def test_who_was_being_looked_at_when_the_camera_began_anew_is_looked_at_again() -> None:
    scene = Scene()
    scene.frame(0, run=1)
    asked: list[int] = []
    while scene.out.jobs:  # all but identity answers
        worker, job, _ = scene.take()
        if isinstance(job, IdentityJob):
            asked.append(job.run)
        else:
            scene.answer(worker, job)
    scene.now += 0.2
    for seq in range(60):
        scene.frame(seq, run=2)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if isinstance(job, IdentityJob):
                asked.append(job.run)
            scene.answer(worker, job)
        scene.now += 1 / 30
        # Its worker speaks again, and so gets the next one.
        scene.conductor.ready(Ready(sender="identity.a", pool="identity", last_job=10_000), scene.now)
    assert asked[:2] == [1, 2]
    assert scene.out.results[-1].faces[0].track == 1
    assert scene.out.results[-1].faces[0].identity.status == "unknown"


@pytest.mark.parametrize("rate", [15, 25, 30])
def test_a_room_in_which_nothing_moves_is_not_called_stalled(rate: int) -> None:
    scene = Scene()
    for seq in range(20 * rate):
        scene.frame(seq, media_time_s=seq / rate, moving=False)
        scene.now += 0.5 / rate
        scene.answer_all(faces=0)
        scene.now += 0.5 / rate
    assert scene.conductor.counts.rested > 10 * rate
    assert all(picture.quiet for picture in scene.out.pictures if picture.seq)  # the first is shown before all else


def test_an_old_run_or_number_is_refused_and_a_late_finding_ignored() -> None:
    scene = Scene()
    scene.frame(5, run=2)
    worker, job, _ = scene.take()
    with pytest.raises(MessageError):
        scene.frame(6, run=1)
    with pytest.raises(MessageError):
        scene.frame(5, run=2)
    scene.frame(0, run=3)
    scene.answer(worker, job)
    assert scene.out.results == []
    scene.answer_all()
    assert [(result.run, result.seq) for result in scene.out.results] == [(3, 0)]


@pytest.mark.parametrize("fields", [{}, {"every_frame": True}], ids=["live", "every frame"])
def test_a_camera_that_began_anew_with_its_clock_set_back_is_taken_though_an_old_frame_waits_for_a_worker(
    fields: dict[str, Any],
) -> None:
    scene = Scene(workers=(), every_frame=bool(fields))
    scene.frame(5, run=2, **fields)
    for seq in range(40):
        scene.now += 0.1
        if fields or seq < 10:
            with pytest.raises(MessageError):
                scene.frame(seq, run=1, **fields)
        else:
            scene.frame(seq, run=1)
    for worker in EACH_ONE:
        scene.join(worker)
    scene.answer_all()
    assert [result.run for result in scene.out.results] == ([2] if fields else [1])


def test_an_unknown_camera_is_refused() -> None:
    with pytest.raises(MessageError, match="no camera 'hall'"):
        Scene().frame(0, camera="hall")


def test_a_finding_whose_arrays_do_not_fit_is_refused_and_the_next_frame_goes_on() -> None:
    scene = Scene()
    scene.frame(0)
    worker, job, _ = scene.take()
    finding, blobs = found(worker, job, 2)
    for damage in (blobs[:-1], [blobs[0][:1], *blobs[1:]], [blobs[0] * np.float32(np.nan), *blobs[1:]]):
        with pytest.raises(MessageError):
            scene.conductor.detection(finding, damage, scene.now)
        scene.frame(scene.conductor.lines["cam0"].last_seq + 1)
        worker, job, _ = scene.take()
        finding = finding.model_copy(update={"job": job.job})
    scene.answer(worker, job)
    scene.answer_all()
    assert [result.seq for result in scene.out.results] == [3]
    assert scene.conductor.counts.lost == 3


def test_a_worker_that_cannot_analyse_a_frame_says_so_and_every_frame_mode_marks_it() -> None:
    scene = Scene()
    scene.frame(0, every_frame=True)
    while scene.out.jobs:
        worker, job, _ = scene.take()
        with pytest.raises(MessageError, match="out of memory"):
            scene.conductor.detection(
                DetectionFinding(sender=worker, job=job.job, work_ms=1.0, error="out of memory"), [], scene.now
            )
    assert [(result.seq, result.analysed) for result in scene.out.results] == [(0, False)]


def test_the_end_of_a_source_is_said_after_its_last_result() -> None:
    scene = Scene()
    scene.frame(0, every_frame=True)
    scene.conductor.end_of_source(EndOfSource(sender="capture.test.1", camera="cam0", run=1, frames=1), scene.now)
    assert scene.out.ends == []
    scene.answer_all()
    assert scene.out.ends == ["cam0"]
    end = EndOfSource(sender="capture.test.1", camera="cam0", run=1, frames=1)
    scene.conductor.end_of_source(end, scene.now)  # it is told again, for those who come later
    assert scene.out.ends == ["cam0"] and scene.out.missing == [0]


def test_a_source_that_could_not_be_read_again_after_its_capture_was_restarted_has_ended_and_is_broken_off() -> None:
    scene = Scene(every_frame=True)
    scene.frame(0, every_frame=True)
    end = EndOfSource(sender="capture.test.2", camera="cam0", run=2, frames=0)
    scene.conductor.end_of_source(end, scene.now)
    assert scene.out.ends == []  # what has come is analysed first
    scene.answer_all()
    scene.conductor.end_of_source(end, scene.now)  # it is told again
    assert (scene.out.ends, scene.out.missing) == (["cam0"], [None])
    assert [result.seq for result in scene.out.results] == [0]
    scene.frame(0, run=3, every_frame=True)  # it can be read again
    scene.answer_all()
    scene.conductor.end_of_source(end.model_copy(update={"run": 3, "frames": 1}), scene.now)
    assert (scene.out.ends, scene.out.missing) == (["cam0", "cam0"], [None, 0])


def test_a_source_that_has_ended_is_not_broken_off_by_a_capture_that_finds_nothing_afterwards() -> None:
    scene = Scene(every_frame=True)
    scene.frame(0, every_frame=True)
    for run, frames in ((1, 1), (2, 0)):
        end = EndOfSource(sender="capture.test.1", camera="cam0", run=run, frames=frames)
        scene.conductor.end_of_source(end, scene.now)
    scene.answer_all()
    scene.conductor.end_of_source(end, scene.now)
    assert (scene.out.ends, scene.out.missing) == (["cam0"], [0])


def test_a_conductor_that_comes_after_the_end_says_what_it_never_got() -> None:
    scene = Scene()
    scene.conductor.end_of_source(EndOfSource(sender="capture.test.1", camera="cam0", run=1, frames=7), scene.now)
    assert (scene.out.ends, scene.out.missing) == (["cam0"], [7])


def test_pictures_of_a_quiet_room_are_shown_in_order_though_a_look_takes_longer_than_a_frame() -> None:
    scene = Scene()
    under_way: list[tuple[float, str, Any]] = []
    for seq in range(300):
        scene.frame(seq)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            under_way.append((scene.now + 0.08, worker, job))
        scene.now += 1 / 30
        while under_way and under_way[0][0] <= scene.now:
            _, worker, job = under_way.pop(0)
            scene.answer(worker, job, faces=0)
    assert scene.conductor.counts.rested > 100
    assert scene.out.shown == sorted(scene.out.shown) and len(set(scene.out.shown)) > 250


def watch_live(
    scene: Scene, frames: range, takes_s: Callable[[DetectionJob], float], faces: int = 1
) -> list[tuple[float, int]]:
    """Give a scene 30 frames a second; a look takes that long. Return when the results came, and of which frames."""
    under_way: list[tuple[float, str, Any]] = []
    came: list[tuple[float, int]] = []
    for seq in frames:
        scene.frame(seq)
        for _ in range(4):
            while scene.out.jobs:
                worker, job, _ = scene.take()
                takes = takes_s(job) if isinstance(job, DetectionJob) else 0.001
                under_way.append((scene.now + takes, worker, job))
            scene.now += 1 / 120
            for done in sorted((one for one in under_way if one[0] <= scene.now), key=lambda one: one[0]):
                under_way.remove(done)
                scene.answer(done[1], done[2], faces)
            scene.conductor.tick(scene.now)
            came += [(scene.now, result.seq) for result in scene.out.results[len(came) :]]
    return came


@pytest.mark.parametrize("takes_s", [0.05, 0.2, 0.45, 0.7, 0.95, 1.5])
@pytest.mark.parametrize("faces", [0, 1], ids=["quiet", "somebody"])
def test_the_picture_never_jumps_back_however_long_a_look_takes(takes_s: float, faces: int) -> None:
    scene = Scene()
    watch_live(scene, range(600), lambda job: takes_s, faces)
    assert scene.out.shown == sorted(scene.out.shown)
    results = [result.seq for result in scene.out.results]
    assert results == sorted(results) and len(results) >= 10
    early = {picture.seq for picture in scene.out.pictures if picture.seq > 60}
    if faces and takes_s < 1.0:  # once that is known, each picture is waited for, and shows whom it shows
        assert not early


def test_looks_that_never_come_do_not_stop_the_picture() -> None:
    scene = Scene()
    watch_live(scene, range(300), lambda job: 1e9)
    assert scene.out.shown == list(range(300))


def test_whom_slow_looks_find_each_time_is_not_nobody() -> None:
    scene = Scene()
    watch_live(scene, range(900), lambda job: 1.2)
    assert scene.conductor.counts.rested == 0
    assert {len(result.faces) for result in scene.out.results} == {1}


def test_when_looks_are_quick_again_pictures_are_shown_with_their_analysis_again() -> None:
    scene = Scene()
    watch_live(scene, range(600), lambda job: 0.7 if 200 <= job.seq < 400 else 0.02)
    seqs = {result.seq for result in scene.out.results}
    assert set(range(450, 590)) <= seqs
    assert not [picture.seq for picture in scene.out.pictures if picture.seq >= 450]
    assert scene.out.shown == sorted(scene.out.shown)


TWO_EYES = ("detection.a", "detection.b", "expression.a", "identity.a")


def test_a_detection_worker_that_hangs_holds_the_others_up_for_half_a_second_at_most() -> None:
    scene = Scene(TWO_EYES)
    came = watch_live(scene, range(300), lambda job: 1e9 if job.seq == 100 else 0.04)
    assert scene.conductor.counts.lost == 1
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(came)]
    assert max(gaps) < 0.6
    assert 250 < len(came) < 300 and len({seq for _, seq in came}) == len(came)


def test_a_hung_worker_that_answers_at_last_is_asked_again_and_its_old_answer_changes_nothing() -> None:
    scene = Scene(TWO_EYES)
    came = watch_live(scene, range(300), lambda job: 3.0 if job.seq == 100 else 0.04)
    seqs = [seq for _, seq in came]
    assert 100 not in seqs and seqs == sorted(seqs)
    assert set(range(200, 290)) - set(seqs) == set()  # it takes both to keep up


def test_looks_at_the_whole_picture_are_not_lost_because_close_ones_overtake_them() -> None:
    scene = Scene(TWO_EYES)
    whole: list[int] = []

    def takes_s(job: DetectionJob) -> float:
        if job.near is not None:
            return 0.02
        whole.append(job.seq)
        return 0.3 if len(whole) % 4 else 0.8

    came = watch_live(scene, range(600), takes_s)
    assert scene.conductor.counts.lost == 0
    assert len(whole) > 20 and len(came) > len(whole)


def test_in_every_frame_mode_a_slow_look_is_waited_for() -> None:
    scene = Scene(TWO_EYES)
    for seq in range(10):
        scene.frame(seq, every_frame=True)
    slow = scene.take()
    scene.answer_all()
    scene.now += 1.5
    scene.conductor.tick(scene.now)
    scene.answer(slow[0], slow[1])
    scene.answer_all()
    assert [(result.seq, result.analysed) for result in scene.out.results] == [(seq, True) for seq in range(10)]


def test_an_answer_from_before_a_crossing_does_not_take_the_place_of_the_look_after_it() -> None:
    scene = Scene()
    for seq in range(2):
        scene.frame(seq)
        scene.answer_all()
        scene.now += 1 / 30
    line = scene.conductor.lines["cam0"]
    [track] = line._tracker.tracks
    line._followed[track.id].identity.lost()  # so that it is looked at in the next frame
    scene.frame(2)
    held = []
    while scene.out.jobs:
        worker, job, _ = scene.take()
        if isinstance(job, IdentityJob):
            held.append((worker, job))
        else:
            scene.answer(worker, job)
    track.crossed = True  # somebody passes
    for worker, job in held:
        scene.answer(worker, job)
    assert held and track.crossed


def test_identity_is_asked_for_new_faces_only_and_boxes_of_known_ones_are_sent_along() -> None:
    scene = Scene()
    scene.frame(0)
    scene.answer_all()
    scene.now += 1 / 30
    scene.frame(1)
    _, job, _ = scene.out.jobs[0]
    assert isinstance(job, DetectionJob) and job.known is not None and len(job.known) == 1
    worker, job, _ = scene.take()
    scene.answer(worker, job)
    assert not any(isinstance(other, IdentityJob) for _, other, _ in scene.out.jobs)


def test_two_strangers_of_one_picture_have_two_numbers_however_alike_they_are() -> None:
    scene = Scene()
    scene.conductor.recall.unknown.reserve([7, 8])
    for seq in range(2):
        scene.frame(seq)
        scene.answer_all(faces=2)
        scene.now += 1 / 30
    assert {face.identity.number for face in scene.out.results[-1].faces} == {7, 8}


@pytest.mark.parametrize("takes", [0.03, 0.04, 0.07, 0.09])
@pytest.mark.parametrize("cameras", [1, 3])
def test_where_there_is_not_time_for_all_expressions_every_face_has_its_turn(takes: float, cameras: int) -> None:
    scene = Scene(
        cameras={f"cam{number}": {"source": "demo"} for number in range(cameras)},
        expression={"batch": 2, "every_ms": 0},
    )
    busy: tuple[float, str, Any] | None = None
    for step in range(1000):
        if step % 5 == 0:
            for number in range(cameras):
                scene.frame(step // 5, camera=f"cam{number}", media_time_s=step / 100)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if isinstance(job, DetectionJob):
                finding, blobs = found(worker, job, 6, 20.0)
                order = np.array([3, 0, 5, 1, 4, 2])  # by their scores, which stay the same
                blobs[0] = np.array([[50 * face, 20, 20, 20] for face in order], np.float32)
                blobs[4] = np.eye(48, dtype=np.float32)[order]
                scene.conductor.detection(finding, blobs, scene.now)
            elif isinstance(job, ExpressionJob):
                assert busy is None
                busy = scene.now + takes, worker, job
            else:
                scene.answer(worker, job)
        scene.now += 0.01
        if busy is not None and busy[0] <= scene.now:
            (_, worker, job), busy = busy, None
            scene.answer(worker, job)
        scene.conductor.tick(scene.now)
    judged: Counter[int] = Counter()
    seen: set[int] = set()
    for result in scene.out.results:
        seen |= {face.track for face in result.faces}
        judged.update(face.track for face in result.faces if face.expression.probabilities is not None)
    assert len(seen) == 6 * cameras and set(judged) == seen
    assert min(judged.values()) > 0.5 * max(judged.values())


def patched(job: DetectionJob, finding: DetectionFinding, blobs: list[Any]) -> tuple[DetectionFinding, list[Any]]:
    """The one face that was found, without a patch where it stands where a known one was expected, as the worker's."""
    if job.known is None or not near_known(blobs[0], np.array(job.known, np.float32).reshape(-1, 4)).any():
        return finding, blobs
    return finding.model_copy(update={"patch_faces": (), "patch_shapes": (), "patch_boxes": ()}), blobs[:6]


def test_live_a_much_better_crop_of_a_new_face_is_looked_at_out_of_turn_and_patches_are_cut_only_for_that() -> None:
    scene = Scene(identity={"intervals_s": [3.0, 10.0]})
    looked: list[int] = []
    cut: list[int] = []
    for seq in range(300):
        scene.frame(seq)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if isinstance(job, DetectionJob):
                finding, blobs = patched(job, *found(worker, job, 1))
                blobs[3][:, 0] = 0.2 if seq < 40 else 0.5  # who comes near is seen better
                cut += [seq] * len(finding.patch_faces)
                scene.conductor.detection(finding, blobs, scene.now)
            else:
                looked += [job.seq] if isinstance(job, IdentityJob) else []
                scene.answer(worker, job)
        scene.now += 1 / 30
    assert looked == [0, 40]
    # Half a second after each look, and for the first five seconds at most.
    assert cut[:1] == [0] and not set(cut) & {*range(1, 15), *range(41, 55)} and max(cut) <= 150


def test_a_face_that_no_identity_worker_looks_at_is_not_kept_for_one() -> None:
    scene = Scene(("detection.a", "expression.a"))
    for seq in range(150):
        scene.frame(seq)
        scene.answer_all()
        scene.now += 1 / 30
        scene.conductor.tick(scene.now)
        assert scene.conductor.dispatcher.waiting("identity") <= 1
    scene.join("identity.b")
    job = next(job for _, job, _ in scene.out.jobs if isinstance(job, IdentityJob))
    assert job.seq >= 80  # of the last two seconds


def test_while_nobody_is_in_view_pictures_are_shown_and_few_are_looked_at() -> None:
    scene = Scene()

    def watch(first: int, frames: int, faces: int) -> None:
        for seq in range(first, first + frames):
            scene.frame(seq)
            scene.answer_all(faces)
            scene.now += 1 / 30

    watch(0, 150, faces=0)
    scene.out.results.clear()
    scene.out.pictures.clear()
    watch(150, 300, faces=0)
    assert 50 < len(scene.out.results) < 90
    assert all(result.analysed and not result.quiet for result in scene.out.results)
    assert len(scene.out.results) + len(scene.out.pictures) == 300
    assert all(picture.quiet and not picture.analysed for picture in scene.out.pictures)
    assert scene.conductor.counts.rested == scene.conductor.counts.frames - scene.conductor.counts.results

    scene.out.results.clear()
    watch(450, 60, faces=1)
    came = next(result for result in scene.out.results if result.faces)
    assert came.seq - 450 <= 5  # frames; a sixth of a second
    assert [result.seq for result in scene.out.results if result.seq >= came.seq] == list(range(came.seq, 510))


@pytest.mark.parametrize(
    ("settings", "fields", "close"),
    [
        ({}, {}, True),
        ({"privacy": {"blur": "unknown"}}, {}, False),
        ({"detection": {"adapt_input": False}}, {}, False),
        ({"pipeline": {}}, {"every_frame": True}, False),
        ({"pipeline": {}}, {"still": True}, False),
    ],
    ids=["live", "blurred", "switched off", "every frame", "pictures"],
)
def test_the_detector_looks_around_the_faces_in_view_only_live(
    settings: dict[str, Any], fields: dict[str, Any], close: bool
) -> None:
    scene, near = Scene(**settings), []
    for seq in range(30):
        scene.frame(seq, **fields)
        near += [job.near for _, job, _ in scene.out.jobs if isinstance(job, DetectionJob)]
        scene.answer_all(faces=2)
        scene.now += 1 / 30
    assert len(near) == 30
    looked = [boxes for boxes in near if boxes is not None]
    assert all(len(boxes) == 2 for boxes in looked)
    assert len(looked) > 20 if close else not looked


@pytest.mark.parametrize("blur", ["none", "unknown"])
def test_a_picture_with_more_faces_than_are_told_of_is_blurred_whole_where_faces_are_blurred(blur: str) -> None:
    scene = Scene(privacy={"blur": blur})
    for seq, more in enumerate((0, 3, 0)):
        scene.frame(seq)
        worker, job, _ = scene.take()
        finding, blobs = found(worker, job, 1)
        scene.conductor.detection(finding.model_copy(update={"more": more}), blobs, scene.now)
        scene.answer_all()
        scene.now += 1 / 30
    assert scene.out.blurred == [False, blur != "none", False]


def crowd(worker: str, job: DetectionJob, faces: int) -> tuple[DetectionFinding, list[Any]]:
    """As ``found``, of faces that fit into one picture and that nobody would mistake for each other."""
    finding, blobs = found(worker, job, faces)
    blobs[0] = np.array([[15 * face, 20, 12, 12] for face in range(faces)], np.float32)
    blobs[4] = np.eye(48, dtype=np.float32)[:faces]
    return finding, blobs


def take_time(
    scene: Scene, takes_s: Callable[[str, Any], float], until: Callable[[int], bool], *, faces: int, rate: int = 30
) -> None:
    """Let workers take so long over each job, and tell the conductor the time, until a step (a 100th s) ends it."""
    busy: dict[str, list[tuple[float, Any]]] = {}
    for step in itertools.count():
        if until(step):
            return
        while scene.out.jobs:
            worker, job, _ = scene.take()
            queue = busy.setdefault(worker, [])
            queue.append((max(scene.now, queue[-1][0] if queue else 0.0) + takes_s(worker, job), job))
        scene.now += 0.01
        for worker, queue in busy.items():
            while queue and queue[0][0] <= scene.now:
                _, job = queue.pop(0)
                if isinstance(job, DetectionJob):
                    scene.conductor.detection(*crowd(worker, job, faces), scene.now)
                else:
                    scene.answer(worker, job)
        scene.conductor.tick(scene.now)


def test_the_names_of_a_crowd_are_asked_for_a_few_at_a_time_and_come_though_each_job_takes_long() -> None:
    scene, seq = Scene(), itertools.count()
    asked: list[int] = []

    def takes_s(worker: str, job: Any) -> float:
        if isinstance(job, IdentityJob):
            asked.append(len(job.boxes))
            return 2.1
        return 0.01

    def until(step: int) -> bool:
        if step % 4 == 0:
            scene.frame(next(seq), media_time_s=step / 100)
        return step == 1000

    take_time(scene, takes_s, until, faces=20)
    assert max(asked) <= 8
    assert {face.identity.status for face in scene.out.results[-1].faces} == {"unknown"}
    assert len(scene.out.results[-1].faces) == 20


def test_live_a_detector_that_takes_longer_than_the_time_out_is_waited_for_once_that_is_known() -> None:
    scene, seq = Scene(), itertools.count()

    def until(step: int) -> bool:
        if step % 4 == 0:
            scene.frame(next(seq), media_time_s=step / 100)
        return step == 1500

    take_time(scene, lambda worker, job: 2.1 if isinstance(job, DetectionJob) else 0.01, until, faces=1)
    assert len(scene.out.results) >= 5 and all(result.faces for result in scene.out.results)


def test_a_late_look_at_who_has_been_asked_about_again_is_left_out() -> None:
    scene = Scene((*EACH_ONE, "identity.b"))
    held: list[tuple[str, Any]] = []
    for seq in range(4):
        scene.frame(seq)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if isinstance(job, IdentityJob):
                held.append((worker, job))
            else:
                scene.answer(worker, job)
        scene.now += 2.1 if seq == 0 else 1 / 30
        scene.conductor.tick(scene.now)
    line = scene.conductor.lines["cam0"]
    [followed] = line._followed.values()
    assert len(held) == 2  # the second when the first was given up
    scene.answer(*held[0])
    assert followed.identity.summary() is None
    scene.answer(*held[1])
    summary = followed.identity.summary()
    assert summary is not None and summary.looks == 1


def numbered(workers: Sequence[str], takes_s: Callable[[str, Any], float]) -> list[dict[str, Any]]:
    """Analyse six frames of twenty strangers, and return what does not depend on the clock."""
    scene = Scene(workers, every_frame=True, pipeline={"window": 4})
    scene.conductor.recall.unknown.reserve(range(1, 100))
    seq = itertools.count()

    def until(step: int) -> bool:
        while not scene.conductor.full() and (number := next(seq)) < 6:
            scene.frame(number, every_frame=True)
        return len(scene.out.results) == 6

    take_time(scene, takes_s, until, faces=20)
    return [result.model_dump(exclude={"at", "latency_ms", "timings_ms", "n"}) for result in scene.out.results]


@pytest.mark.parametrize(
    "seconds",
    [
        {"identity.a": 2.1},
        {"detection.a": 2.1},
        {"expression.a": 2.1},
        {"identity.a": 0.9, "identity.b": 0.05, "expression.a": 5.0},
        {"identity.a": 4.7, "detection.a": 3.0, "detection.b": 0.5},
    ],
    ids=str,
)
def test_every_frame_slow_workers_of_a_crowd_say_the_same_as_quick_ones(seconds: dict[str, float]) -> None:
    quick = numbered(EACH_ONE, lambda worker, job: 0.01)
    slow = numbered(sorted({*EACH_ONE, *seconds}), lambda worker, job: seconds.get(worker, 0.01))
    assert slow == quick
    faces = [face for result in slow for face in result["faces"]]
    assert len(faces) == 120 and all(result["analysed"] for result in slow)
    assert {(face["identity"]["status"], face["expression"]["status"]) for face in faces} == {("unknown", "ok")}
    assert [face["identity"]["number"] for face in slow[-1]["faces"]] == list(range(1, 21))


@pytest.mark.parametrize("takes_s", [0.1, 0.16, 0.3, 0.5, 0.8])
def test_expressions_that_always_come_late_are_shown_with_the_frames_that_follow(takes_s: float) -> None:
    scene, seq = Scene(), itertools.count()

    def until(step: int) -> bool:
        if step % 4 == 0:
            scene.frame(next(seq), media_time_s=step / 100)
        return step == 800

    take_time(scene, lambda worker, job: takes_s if isinstance(job, ExpressionJob) else 0.01, until, faces=1)
    looks = [result.faces[0].expression for result in scene.out.results if result.seq > 50]
    assert len(looks) > 100 and {(look.status, look.label) for look in looks} == {("ok", "sad")}
    assert 0 < scene.conductor.counts.late_expressions <= scene.conductor.counts.results


def test_a_result_that_cannot_be_said_is_lost_and_told_and_the_next_ones_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    said = scene.out.result

    def result(result: Result, flight: Flight) -> None:
        if result.seq == 1:
            Result.model_validate({**dict(result), "width": 0})
        if result.seq == 2:
            raise MessageError("results: the map has 70000 bytes, at most 65536 are sent")
        said(result, flight)

    monkeypatch.setattr(scene.out, "result", result)
    for seq in range(4):
        scene.frame(seq)
        scene.answer_all()
        scene.now += 1 / 30
    assert [result.seq for result in scene.out.results] == [0, 3]
    assert scene.conductor.counts.lost == 2 and not scene.conductor.busy()
    assert [str(error)[:32] for error in scene.conductor.unsaid] == [
        "Result of our own: width: Input ", "results: the map has 70000 bytes"
    ]  # fmt: skip


def test_the_stage_tells_of_what_cannot_be_said_and_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def publish(message: Message, about: str) -> None:
        Result.model_validate({**dict(message), "width": 0})

    stage = ConductorStage(config)
    try:
        stage.open()
        monkeypatch.setattr(stage.news, "publish", publish)
        thinking, now = stage._thinking, time.monotonic()
        thinking.subscribed("detection.a", now)
        thinking.ready(Ready(sender="detection.a", pool="detection", last_job=-1), now)
        frame = Frame(
            sender="capture.test.1", camera=next(iter(config.cameras)), run=1, seq=0, captured_at=1e9, age_ms=1.0,
            clock=clock.reading(int(now * 1e9)), media_time_s=0.0, width=WIDTH, height=HEIGHT,
        )  # fmt: skip
        thinking.frame(frame, memoryview(b"pixels"), now)
        nobody = found("detection.a", DetectionJob.model_construct(job=1), 0)
        with caplog.at_level(logging.WARNING):
            thinking.detection(*nobody, now)
            stage.handle(set())
        assert thinking.counts.lost == 1 and not thinking.busy()
        assert "Result of our own: width: Input should be greater" in caplog.text
    finally:
        stage.close()
        stage.news.close()
        stage._inbox.close()


def test_a_score_outside_of_its_bounds_is_the_nearest_that_can_be_said() -> None:
    scene = Scene()
    for seq, score in enumerate((0.9, -0.2, 1.5)):
        scene.frame(seq)
        worker, job, _ = scene.take()
        finding, blobs = found(worker, job, 1)
        blobs[1] = np.array([score], np.float32)
        scene.conductor.detection(finding, blobs, scene.now)
        scene.answer_all()
        scene.now += 1 / 30
    scores = [face.score for result in scene.out.results for face in result.faces]
    assert len(scene.out.results) == 3 and scores == pytest.approx([0.9, 0.0, 1.0])


def test_that_somebody_is_followed_is_said_also_while_they_are_out_of_view() -> None:
    scene, seqs = Scene(), itertools.count()

    def said(faces: int) -> tuple[bool, bool]:
        scene.frame(next(seqs))
        scene.answer_all(faces)
        scene.now += 1 / 30
        result = scene.out.results[-1]
        return result.following, result.selected is not None

    assert said(1) == (False, False)
    assert scene.conductor.select("cam0", scene.out.results[-1].faces[0].track, None, None)
    assert said(1) == (True, True)
    assert said(0) == (True, False)
    scene.conductor.select("cam0", None, None, None)
    assert said(0) == (False, False)


def test_where_faces_are_blurred_every_frame_is_looked_at() -> None:
    scene = Scene(privacy={"blur": "unknown"})
    for seq in range(200):
        scene.frame(seq)
        scene.answer_all(faces=0)
        scene.now += 1 / 30
    assert len(scene.out.results) == 200


@pytest.mark.parametrize("ahead_s", [5.0, 500.0, 1e9])
def test_a_time_that_runs_ahead_once_stops_neither_expressions_nor_the_label(ahead_s: float) -> None:
    scene = Scene(expression={"every_ms": 0})
    for seq in range(300):
        jumps = {"media_time_s": seq / 30 + ahead_s} if seq == 100 else {}
        scene.frame(seq, **jumps)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            scene.answer(worker, job, label=4 if seq < 150 else 3)
        scene.now += 1 / 30
    after = scene.out.results[150:]
    assert all(face.expression.probabilities for result in after for face in result.faces)
    assert {face.expression.label for result in scene.out.results[-60:] for face in result.faces} == {"happy"}
    assert len({face.track for result in scene.out.results[102:] for face in result.faces}) == 1


def test_who_was_asked_about_in_two_jobs_is_asked_about_again_when_the_camera_begins_anew_between_them() -> None:
    scene = Scene(every_frame=True)
    scene.side = 20.0
    scene.frame(0, run=1, every_frame=True, width=2000)
    first = True
    while scene.out.jobs:
        worker, job, _ = scene.take()
        if isinstance(job, IdentityJob) and not first:
            break
        first = first and not isinstance(job, IdentityJob)
        scene.answer(worker, job, faces=16)
    assert isinstance(job, IdentityJob) and not scene.out.results
    for seq in range(8):
        scene.now += 0.5
        scene.frame(seq, run=2, every_frame=True, width=2000, media_time_s=seq * 0.5)
        scene.conductor.ready(Ready(sender="identity.a", pool="identity", last_job=job.job), scene.now)
        scene.answer_all(faces=16)
    assert {face.identity.status for face in scene.out.results[-1].faces} == {"unknown"}
