"""Whether a face can be judged, on the sample photos as they are and made worse."""

import dataclasses
import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models import quality
from models.detector import FaceDetector
from models.quality import Limits, Quality
from tests.models.faces import photo

ORDINARY = ("five_people.jpg", "single_face.jpg", "obama.jpg", "obama2.jpg", "biden.jpg", "portrait_angry.jpg")
GOOD = Quality(size_px=120, sharpness=0.6, turn=0.05, roll=0, brightness=0.5, contrast=0.4, edge_cut=0)

Face = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]


@pytest.fixture(scope="module")
def faces() -> dict[str, list[Face]]:
    detector = FaceDetector()
    found = {}
    for name in (*ORDINARY, "portrait_disgusted.jpg", "obama_partial_face2.jpg"):
        picture = photo(name)
        detections = detector.detect(picture)
        found[name] = [(picture, *face) for face in zip(detections.boxes, detections.landmarks, strict=True)]
    return found


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_photos_can_be_assessed(faces: dict[str, list[Face]], name: str) -> None:
    for face in faces[name]:
        measured = quality.assess(*face)
        assert quality.reason(measured) is None, measured
        assert quality.score(measured) > 0.5


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("side", [26, 40])
def test_small_faces_of_a_webcam_can_be_assessed_and_count_less(
    faces: dict[str, list[Face]], name: str, side: int
) -> None:
    for picture, box, points in faces[name]:
        factor = side / float(box[2])
        small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        small = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
        measured = quality.assess(small, box * factor, points * factor)
        assert quality.reason(measured) is None, measured
        assert quality.score(measured) < quality.score(quality.assess(picture, box, points))


def test_what_is_wrong_with_a_face_is_named(faces: dict[str, list[Face]]) -> None:
    picture, box, points = faces["single_face.jpg"][0]
    blurred = cv2.GaussianBlur(picture, (0, 0), 0.06 * float(box[3]))
    assert quality.reason(quality.assess(blurred, box, points)) == "blurred"
    assert quality.reason(quality.assess((picture * 0.15).astype(np.uint8), box, points)) == "dark"
    washed = np.clip(picture.astype(np.int32) // 8 + 235, 0, 255).astype(np.uint8)
    assert quality.reason(quality.assess(washed, box, points)) == "bright"
    factor = 20 / float(box[2])
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    assert quality.reason(quality.assess(small, box * factor, points * factor)) == "small"
    picture, box, points = faces["obama_partial_face2.jpg"][0]
    assert quality.reason(quality.assess(picture, box, points)) == "cut"


def test_motion_blur_counts_as_blur(faces: dict[str, list[Face]]) -> None:
    picture, box, points = faces["single_face.jpg"][0]
    length = int(0.25 * box[2])
    smeared = cv2.filter2D(picture, -1, np.full((1, length), 1 / length, np.float32))
    sharp = quality.assess(picture, box, points).sharpness
    assert quality.assess(smeared, box, points).sharpness < 0.8 * sharp


def test_a_turned_head_is_told_from_a_frontal_one(faces: dict[str, list[Face]]) -> None:
    frontal = quality.assess(*faces["obama.jpg"][0]).turn
    turned = quality.assess(*faces["portrait_disgusted.jpg"][0]).turn  # 45 degrees
    assert frontal < 0.15
    assert 0.4 < turned < 0.62
    picture, box, points = faces["obama.jpg"][0]
    profile = points.copy()
    profile[[1, 4]] = profile[[0, 3]] + (4, 0)  # both eyes and both corners nearly one above the other
    profile[2] = points[2] - (box[2] / 3, 0)
    assert quality.reason(quality.assess(picture, box, profile)) == "turned"


def test_roll_turns_with_the_picture_and_turn_does_not(faces: dict[str, list[Face]]) -> None:
    picture, box, points = faces["obama2.jpg"][0]
    upright = quality.assess(picture, box, points)
    angle = np.deg2rad(30)
    middle = points.mean(axis=0)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    tilted = quality.assess(picture, box, (points - middle) @ rotation + middle)
    assert tilted.roll - upright.roll == pytest.approx(30, abs=0.1)
    assert tilted.turn == pytest.approx(upright.turn, abs=1e-3)


@pytest.mark.parametrize(
    "change, wanted",
    [
        ({}, None),
        ({"size_px": 20.0, "sharpness": 0.1}, "small"),
        ({"edge_cut": 0.5}, "cut"),
        ({"turn": 0.8}, "turned"),
        ({"brightness": 0.05}, "dark"),
        ({"contrast": 0.02}, "bright"),
        ({"contrast": 0.02, "brightness": 0.3}, "dark"),
        ({"brightness": 0.97}, "bright"),
        ({"sharpness": 0.1}, "blurred"),
    ],
)
def test_the_first_thing_that_somebody_could_change_is_the_reason(change: dict[str, float], wanted: str | None) -> None:
    measured = dataclasses.replace(GOOD, **change)
    assert quality.reason(measured) == wanted
    if change:
        assert quality.score(measured) < quality.score(GOOD) == 1.0


def test_limits_can_be_set() -> None:
    assert quality.reason(GOOD, Limits(min_size_px=200)) == "small"


def test_a_cut_face_shows_less_the_more_is_cut(faces: dict[str, list[Face]]) -> None:
    picture, box, points = faces["single_face.jpg"][0]
    cuts = []
    for part in (0.0, 0.2, 0.4):
        edge = int(box[0] + part * box[2])
        rest = np.array([0, box[1], box[0] + box[2] - edge, box[3]]) if part else box
        moved = points - (edge, 0) if part else points
        cuts.append(quality.assess(picture[:, edge:] if part else picture, rest, moved).edge_cut)
    assert cuts[0] == 0
    assert cuts[1] == pytest.approx(0.2, abs=0.1)
    assert cuts[2] == pytest.approx(0.4, abs=0.12)


def test_a_box_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the picture"):
        quality.assess(np.zeros((50, 50, 3), np.uint8), (60, 0, 20, 20), np.zeros((5, 2)))


def test_a_picture_of_one_colour_has_no_sharpness_and_no_light() -> None:
    measured = quality.assess(np.zeros((50, 50, 3), np.uint8), (5, 5, 30, 30), np.zeros((5, 2)))
    assert measured.sharpness == 0
    assert quality.reason(measured) is not None


def test_it_takes_little_time_even_for_a_large_face(faces: dict[str, list[Face]]) -> None:
    picture, box, points = faces["obama.jpg"][0]
    large = cv2.resize(picture, None, fx=3, fy=3)
    times = []
    for _ in range(50):
        start = time.process_time()
        quality.assess(large, box * 3, points * 3)
        times.append(time.process_time() - start)
    assert np.median(times) < 0.002, "ten times what it takes, for busy machines"
