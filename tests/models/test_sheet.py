"""Looking only where faces are expected: on real pictures, against looks at the whole of them."""

from __future__ import annotations

import resource

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import sheet
from models.detector import Detections, FaceDetector
from models.sheet import LAYOUTS, Layout, Sheet
from tests.models.faces import overlap, photo


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(input_long_side=640)


def same(found: Detections, wanted: Detections, least: float) -> bool:
    best = [overlap(box, found.boxes).max() for box in wanted.boxes]
    return len(found) == len(wanted) and min(best) >= least


def test_the_five_people_are_found_where_they_are_expected(detector: FaceDetector) -> None:
    picture = photo("five_people.jpg")
    whole = detector.detect(picture)
    near = detector.detect(picture, whole.boxes.tolist())
    assert same(near, whole, 0.7)
    for box, points in zip(near.boxes, near.landmarks, strict=True):
        match = int(np.argmax(overlap(box, whole.boxes)))
        apart = np.linalg.norm(points - whole.landmarks[match], axis=1)
        assert apart.max() < 0.12 * np.sqrt(box[2] * box[3])


@pytest.mark.parametrize(("right", "down"), [(0.35, 0.0), (0.0, -0.35), (-0.25, 0.25)])
def test_faces_may_have_moved_since(detector: FaceDetector, right: float, down: float) -> None:
    picture = photo("five_people.jpg")
    whole = detector.detect(picture)
    expected = whole.boxes.copy()
    expected[:, 0] += right * expected[:, 2:].max(axis=1)
    expected[:, 1] += down * expected[:, 2:].max(axis=1)
    assert same(detector.detect(picture, expected.tolist()), whole, 0.6)


@pytest.mark.parametrize("people", [1, 2, 4])
def test_only_those_who_are_asked_for_are_found(detector: FaceDetector, people: int) -> None:
    picture = photo("five_people.jpg")
    whole = detector.detect(picture)
    near = detector.detect(picture, whole.boxes[:people].tolist())
    assert len(near) == people
    assert all(overlap(box, near.boxes).max() > 0.6 for box in whole.boxes[:people])


def test_twenty_faces_take_several_sheets(detector: FaceDetector) -> None:
    face = cv2.resize(photo("single_face.jpg"), (160, 120))
    picture = np.tile(face, (4, 5, 1))
    whole = detector.detect(picture)
    assert len(whole) == 20
    assert same(detector.detect(picture, whole.boxes.tolist()), whole, 0.6)


def test_who_is_expected_twice_is_one(detector: FaceDetector) -> None:
    picture = photo("obama.jpg")
    box = detector.detect(picture).boxes[0].tolist()
    assert len(detector.detect(picture, [box, [box[0] + 8, box[1], box[2], box[3]]])) == 1


def test_nobody_is_found_where_nobody_is(detector: FaceDetector) -> None:
    assert len(detector.detect(np.full((480, 640, 3), 90, np.uint8), [[100, 100, 50, 60]])) == 0
    assert len(detector.detect(photo("obama.jpg"), [])) == 0


def test_boxes_stay_inside_of_a_picture_that_cuts_a_face(detector: FaceDetector) -> None:
    picture = photo("obama.jpg")
    x, y, width, height = detector.detect(picture).boxes[0].tolist()
    cut = np.ascontiguousarray(picture[:, int(x + 0.25 * width) :])
    found = detector.detect(cut, [[-0.25 * width, y, width, height]])
    assert len(found) == 1
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= (cut.shape[1], cut.shape[0])).all()


FAR = [[-500, -500, 40, 40], [5000, 20, 40, 40], [4e5, 4e5, 40, 40], [0, 0, 0, 0], [10, 10, 9e4, 9e4]]


@pytest.mark.parametrize("box", FAR)
def test_a_place_outside_or_without_size_is_no_error(detector: FaceDetector, box: list[float]) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(detector.detect(np.full((64, 80, 3), 128, np.uint8), [box])) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000


def test_a_picture_of_another_kind_is_refused(detector: FaceDetector) -> None:
    with pytest.raises(ValueError, match="convert it first"):
        detector.detect(np.zeros((48, 48), np.uint8), [[0, 0, 10, 10]])


def test_a_sheet_takes_no_more_than_it_has_places_for() -> None:
    with pytest.raises(ValueError, match="cannot take 2"):
        Sheet(Layout(1, 96), [(0, 0, 9, 9)] * 2)


def test_more_faces_never_cost_less() -> None:
    costs = [sheet.pixels(faces) for faces in range(1, 40)]
    assert costs == sorted(costs)


@given(
    faces=st.lists(
        st.tuples(st.floats(-40, 700), st.floats(-40, 500), st.floats(4, 300), st.floats(4, 300)),
        min_size=1,
        max_size=9,
    ),
    data=st.data(),
)
def test_what_lies_in_the_middle_of_a_tile_comes_back_to_its_face(
    faces: list[tuple[float, float, float, float]], data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from([layout for layout in LAYOUTS if len(faces) <= layout.places]))
    place = data.draw(st.integers(0, len(faces) - 1))
    x, y, width, height = faces[place]
    row, column = divmod(place, layout.across)
    shrunk = layout.tile / (sheet.REACH * max(width, height))
    middle = (np.array([column, row]) + 0.5) * layout.tile
    on_sheet = np.array([[*(middle - np.array([width, height]) * shrunk / 2), width * shrunk, height * shrunk]])
    boxes, scores, landmarks = Sheet(layout, faces).to_picture(on_sheet, np.ones(1), np.tile(middle, (1, 5, 1)))
    assert len(scores) == 1
    # Regions begin and end on whole pixels.
    allowed = 1.5 + 0.5 * max(width, height) / max(2.0, sheet.REACH * max(width, height))
    np.testing.assert_allclose(boxes[0, :2] + boxes[0, 2:] / 2, (x + width / 2, y + height / 2), atol=allowed)
    np.testing.assert_allclose(landmarks[0], np.tile((x + width / 2, y + height / 2), (5, 1)), atol=allowed)
