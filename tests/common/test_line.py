"""One camera's line, by way of the conductor: what rests, what is shown early, and what another size changes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from common import clock
from common.line import RESTING, Flight
from common.messages import MAX_FACES, DetectionJob, EndOfSource, Frame, Picture, Result
from tests.common.test_conductor import LOOK, Scene, found, watch_live


def test_when_the_detector_goes_while_the_room_is_empty_it_is_not_said_that_nobody_is_in_view() -> None:
    scene = Scene()
    watch_live(scene, range(300), lambda job: 0.02, faces=0)
    assert scene.out.pictures[-1].quiet
    scene.out.pictures.clear()
    watch_live(scene, range(300, 600), lambda job: 1e9)
    assert [picture.seq for picture in scene.out.pictures[-200:]] == list(range(400, 600))
    assert not any(picture.quiet for picture in scene.out.pictures[-200:])


def watch_slowly(scene: Scene, rate: float, seconds: float, takes_s: float, first: int = 0) -> list[tuple[float, int]]:
    """Give a scene few frames a second, a look takes that long; return how old pictures were when they were shown."""
    under_way: list[tuple[float, str, Any]] = []
    shown: list[tuple[float, int]] = []
    came = scene.now
    for step in range(round(seconds * 100)):
        if step % round(100 / rate) == 0:
            came = scene.now
            scene.frame(first + step // round(100 / rate), media_time_s=first / rate + step / 100)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            under_way.append((scene.now + (takes_s if isinstance(job, DetectionJob) else 0.001), worker, job))
        scene.now += 0.01
        for done in [one for one in under_way if one[0] <= scene.now]:
            under_way.remove(done)
            scene.answer(done[1], done[2])
        scene.conductor.tick(scene.now)
        shown += [(scene.now - came, seq) for seq in scene.out.shown[len(shown) :]]
    return shown


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("takes_s", [0.04, 0.3, 0.45])
@pytest.mark.parametrize("blur", ["none", "unknown"])
def test_each_picture_of_a_slow_camera_is_shown_once_with_its_analysis(rate: float, takes_s: float, blur: str) -> None:
    scene = Scene(privacy={"blur": blur})
    watch_slowly(scene, rate, 20, takes_s)
    # What comes before the first look has been answered is shown at once.
    assert [picture.seq for picture in scene.out.pictures if picture.seq > takes_s * rate] == []
    assert [result.seq for result in scene.out.results if len(result.faces) != 1] == []
    assert len(scene.out.results) >= min(20 * rate - 1, 19 / takes_s - 3)
    settled = [seq for seq in scene.out.shown if seq > takes_s * rate]
    assert settled == sorted(set(settled))


def test_a_picture_of_a_slow_camera_whose_look_hangs_is_shown_when_it_has_waited_itself() -> None:
    scene = Scene()
    watch_slowly(scene, 1, 5, 0.04)
    scene.out.shown.clear()
    shown = watch_slowly(scene, 1, 5, 1e9, first=5)
    assert [seq for _, seq in shown] == [5, 6, 7, 8, 9]
    assert 0.5 < shown[0][0] < 0.54  # the first when it had waited, the others as they came
    assert all(waited_s < 0.02 for waited_s, _ in shown[1:])


def test_of_frames_that_rest_behind_a_slow_look_few_are_kept_and_none_that_has_been_shown() -> None:
    scene = Scene()
    watch_live(scene, range(150), lambda job: 0.02, faces=0)
    flights = scene.conductor.lines["cam0"].flights
    before = scene.conductor.counts.rested
    scene.out.shown.clear()
    for seq in range(150, 270):  # 60 a second, and the look at one of the first never ends
        scene.frame(seq, media_time_s=5.0 + (seq - 150) / 60)
        resting = [flight.frame.seq for flight in flights.values() if flight.rested]
        assert len(resting) <= RESTING
        assert not set(resting) & set(scene.out.shown)
        scene.now += 1 / 60
        scene.conductor.tick(scene.now)
    assert scene.conductor.counts.rested - before > 80
    assert scene.out.shown[-60:] == list(range(210, 270))
    assert len(flights) <= RESTING + 2


def test_what_was_left_out_behind_a_slow_look_is_not_missing_in_the_end() -> None:
    scene = Scene()
    came = watch_live(scene, range(300), lambda job: 0.3 if job.seq < 280 else 0.001, faces=0)
    scene.conductor.end_of_source(EndOfSource(sender="capture.test.1", camera="cam0", run=1, frames=300), scene.now)
    assert scene.out.missing == [0]
    assert scene.out.shown == sorted(scene.out.shown)
    assert [seq for _, seq in came] == sorted(seq for _, seq in came)
    counts = scene.conductor.counts
    assert counts.frames == counts.results + counts.rested + counts.displaced + counts.lost


class Sized:
    """A scene in which two people, who look alike, stand still, whatever size the camera's pictures have."""

    def __init__(self, **overrides: Any) -> None:
        self.scene = Scene(**overrides)
        self.flights: list[Flight] = []
        self.jobs: list[DetectionJob] = []
        self.seqs = itertools.count()
        publish = self.scene.out.result

        def result(result: Result, flight: Flight) -> None:
            publish(result, flight)
            self.flights.append(flight)

        self.scene.out.result = result  # type: ignore[method-assign]

    def show(self, times: float, faces: int = 2) -> Result:
        """Show a picture so many times as wide and high as the first; return what is said of it."""
        scene, seq = self.scene, next(self.seqs)
        frame = Frame(
            sender="capture.test.1", camera="cam0", run=1, seq=seq, captured_at=1e9 + seq, width=round(320 * times),
            height=round(200 * times), age_ms=1.0, clock=clock.reading(int(scene.now * 1e9)), media_time_s=seq / 30,
        )  # fmt: skip
        scene.conductor.frame(frame, b"", scene.now)
        while scene.out.jobs:
            worker, job, _ = scene.take()
            if not isinstance(job, DetectionJob):
                scene.answer(worker, job)
                continue
            self.jobs.append(job)
            finding, blobs = found(worker, job, faces)
            blobs[0] *= np.float32(times)
            scene.conductor.detection(finding, blobs, scene.now)
        scene.now += 1 / 30
        return scene.out.results[-1]


@pytest.mark.parametrize(("first", "times"), [(1.0, 3.0), (2.0, 1.0)])
def test_faces_keep_their_tracks_and_size_when_the_picture_has_another_size(first: float, times: float) -> None:
    people = Sized()
    for _ in range(13):  # no look at the whole picture is due
        before = people.show(first)
    assert people.jobs[-1].near is not None and people.jobs[-1].known
    after = people.show(times)
    assert [face.track for face in after.faces] == [face.track for face in before.faces] == [1, 2]
    assert [face.box[2] for face in after.faces] == pytest.approx([60 * times] * 2)
    # Where they are expected is not known to the detector before a picture of this size has been looked at.
    assert people.jobs[-1].near is None and people.jobs[-1].known is None
    for _ in range(4):
        people.show(times)
    assert people.jobs[-1].near is not None
    assert [box[2] for box in people.jobs[-1].near] == pytest.approx([60 * times] * 2)


def test_a_face_that_is_missed_when_the_picture_has_another_size_stays_covered() -> None:
    people = Sized(privacy={"blur": "unknown"})
    for _ in range(3):
        people.show(1.0)
    people.show(3.0, faces=1)  # the other one stands at 100, 20
    covers = people.flights[-1].blur
    assert any(x <= 300 and y <= 60 and x + w >= 480 and y + h >= 240 for x, y, w, h in covers)


def test_more_covers_than_a_message_has_room_for_blur_the_picture_whole() -> None:
    people = Sized(privacy={"blur": "unknown"})
    scene, columns = people.scene, 8
    for seq in range(6):  # of those in one picture none is in the next, and all stay covered for a while
        scene.frame(seq, media_time_s=seq / 10)
        worker, job, _ = scene.take()
        finding, blobs = found(worker, job, MAX_FACES, 4.0)
        places = [(10 + 38 * (i % columns) + 6 * seq, 5 + 24 * (i // columns), 4, 4) for i in range(MAX_FACES)]
        blobs[0] = np.array(places, np.float32)
        blobs[1][:] = 0.9 if seq < 4 else 0.3  # no more tracks than a message has room for: these are on none
        blobs[4] = np.tile(np.roll(LOOK, seq), (MAX_FACES, 1))
        scene.conductor.detection(finding, blobs, scene.now)
        scene.answer_all()
        scene.now += 0.1
    said = [(flight.blur_all, len(flight.blur)) for flight in people.flights]
    assert said[:4] == [(False, MAX_FACES * (seq + 1)) for seq in range(4)]
    assert said[4:] == [(True, 0)] * 2
    for result, flight in zip(scene.out.results, people.flights, strict=True):
        assert Picture(
            sender="conductor.test.1", encoding="raw", result=result, blur=flight.blur, blur_all=flight.blur_all
        )
