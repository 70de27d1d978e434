"""The crowd scene is what it promises, and the scoring against its truth counts right."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.truth import is_expected, match, score
from common import crowd
from common.crowd import FRAMES, FaceTruth, FrameTruth, crowd_video, truth
from common.crowd_stage import CrowdStage
from common.sources import open_source
from models.detector import FaceDetector


@pytest.fixture(scope="module")
def frames() -> list[FrameTruth]:
    return truth()


@pytest.fixture(scope="module")
def stage() -> CrowdStage:
    return CrowdStage()


def by_name(frame: FrameTruth) -> dict[str, FaceTruth]:
    return {face.name: face for face in frame.faces}


class TestScene:
    """What the scene promises, read from its truth."""

    def test_length_rate_and_size(self, frames: list[FrameTruth]) -> None:
        capture = cv2.VideoCapture(str(crowd_video()))
        assert capture.get(cv2.CAP_PROP_FPS) == 30
        assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (1280, 720)
        count = 0
        while capture.grab():
            count += 1
        assert count == len(frames) == FRAMES
        assert 20 <= count / 30 <= 30

    def test_at_least_six_faces_are_seen_at_any_time(self, frames: list[FrameTruth]) -> None:
        assert min(sum(is_expected(face) for face in frame.faces) for frame in frames) >= 6

    def test_heights_reach_from_40_to_200(self, frames: list[FrameTruth]) -> None:
        heights = [face.height for frame in frames for face in frame.faces]
        assert 40 <= min(heights) < 45
        assert 195 < max(heights) < 215

    def test_people_enter_and_leave(self, frames: list[FrameTruth]) -> None:
        for name in ("sunglasses", "surprised"):
            seen = [name in by_name(frame) and not by_name(frame)[name].hidden for frame in frames]
            assert not seen[0]
            assert any(seen)
            assert not seen[-1]

    @pytest.mark.parametrize("pair", [("obama", "biden"), ("happy", "hiker")])
    def test_two_pairs_pass_and_one_is_covered(self, frames: list[FrameTruth], pair: tuple[str, str]) -> None:
        behind, front = pair
        order = [by_name(frame)[behind].box[0] < by_name(frame)[front].box[0] for frame in frames]
        assert sum(a != b for a, b in itertools.pairwise(order)) == 2
        assert min(by_name(frame)[behind].visible for frame in frames) < 0.05
        assert min(by_name(frame)[front].visible for frame in frames) > 0.9

    def test_one_turns_away_and_back(self, frames: list[FrameTruth]) -> None:
        turned = [by_name(frame)["angry"].turned for frame in frames]
        assert 3 * 30 < sum(turned) < 8 * 30
        assert not turned[0]
        assert not turned[-1]
        assert {face.name for frame in frames for face in frame.faces if face.turned} == {"angry"}

    def test_it_loops_without_a_seam(self, frames: list[FrameTruth]) -> None:
        first, last = by_name(frames[0]), by_name(frames[-1])
        for name in first.keys() & last.keys():
            assert np.abs(np.subtract(first[name].box, last[name].box)).max() < 8, name

    def test_the_detector_finds_what_the_truth_says(self, frames: list[FrameTruth]) -> None:
        detector = FaceDetector(input_long_side=960)
        source = open_source("demo:crowd", loop=False)
        source.open()
        results = {}
        for number in range(FRAMES):
            picture = source.read()
            assert picture
            if number % 25 == 0:
                results[number] = [(list(map(float, box)), None) for box in detector.detect(picture.pixels).boxes]
        source.close()
        outcome = score(results, frames)
        assert outcome.recall >= 0.98
        assert outcome.precision >= 0.98

    def test_the_same_pixels_each_time_it_is_made(self, stage: CrowdStage) -> None:
        again = CrowdStage()
        for number in (0, 300, 749):
            assert np.array_equal(stage.frame(number)[0], again.frame(number)[0])


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crowd.main(["--truth", str(tmp_path / "truth.json"), "--video", str(tmp_path / "crowd.mp4")]) == 0
    exported = json.loads((tmp_path / "truth.json").read_text())
    assert len(exported) == FRAMES
    assert set(exported[0]["faces"][0]) == {"person", "name", "box", "height", "visible", "hidden", "turned"}
    assert (tmp_path / "crowd.mp4").read_bytes() == crowd_video().read_bytes()
    assert "750 frames" in capsys.readouterr().out


def face(person: int, x: float, **other: object) -> FaceTruth:
    values = {"name": f"p{person}", "box": (x, 0.0, 50.0, 60.0), "height": 60.0, "visible": 1.0}
    return FaceTruth(**({"person": person, "hidden": False, "turned": False} | values | other))  # type: ignore[arg-type]


def frame(number: int, *faces: FaceTruth) -> FrameTruth:
    return FrameTruth(number, number / 30, faces)


class TestScore:
    """Made-up truth, made-up results."""

    def test_all_right(self) -> None:
        made_up = [frame(i, face(0, 0), face(1, 100)) for i in range(3)]
        results = {i: [((2, 1, 50, 60), 7), ((101, 0, 48, 60), 8)] for i in range(3)}
        outcome = score(results, made_up)
        assert (outcome.recall, outcome.precision, outcome.id_switches) == (1, 1, 0)
        assert outcome.ids_per_person == {"p0": 1, "p1": 1}

    def test_a_missed_face_and_a_box_on_nobody(self) -> None:
        outcome = score({0: [((0, 0, 50, 60), 1), ((400, 0, 50, 60), 2)]}, [frame(0, face(0, 0), face(1, 100))])
        assert (outcome.expected, outcome.found, outcome.surplus) == (2, 1, 1)

    def test_hidden_turned_and_small_faces_are_neither_asked_for_nor_held_against(self) -> None:
        others = (face(1, 100, hidden=True), face(2, 200, turned=True), face(3, 300, height=39.0))
        for boxes in ([], [((x, 0, 50, 60), x) for x in (100, 200, 300)]):
            outcome = score({0: [((0, 0, 50, 60), 1), *boxes]}, [frame(0, face(0, 0), *others)])
            assert (outcome.recall, outcome.precision) == (1, 1)

    def test_an_id_that_moves_to_another_person_counts_once_a_move(self) -> None:
        made_up = [frame(i, face(0, 0), face(1, 100)) for i in range(4)]
        boxes = ((0, 0, 50, 60), (100, 0, 50, 60))
        results = {0: list(zip(boxes, (1, 2), strict=True)), 3: list(zip(boxes, (2, 1), strict=True))}
        assert score(results, made_up).id_switches == 2

    def test_a_person_who_gets_a_new_id_is_no_switch_but_a_fragment(self) -> None:
        made_up = [frame(i, face(0, 0)) for i in range(2)]
        outcome = score({0: [((0, 0, 50, 60), 1)], 1: [((0, 0, 50, 60), 2)]}, made_up)
        assert (outcome.id_switches, outcome.ids_per_person) == (0, {"p0": 2})

    def test_a_box_on_the_one_in_front_is_not_taken_for_the_hidden_one(self) -> None:
        passing = frame(1, face(0, 5, hidden=True), face(1, 0))
        results = {0: [((0, 0, 50, 60), 1), ((100, 0, 50, 60), 2)], 1: [((4, 0, 50, 60), 2)]}
        assert score(results, [frame(0, face(0, 0), face(1, 100)), passing]).id_switches == 0

    def test_too_little_overlap_is_no_match(self) -> None:
        assert match([(0, 0, 50, 60)], [(30, 0, 50, 60)]) == []
        assert match([(0, 0, 50, 60)], [(20, 0, 50, 60)]) == [(0, 0)]
