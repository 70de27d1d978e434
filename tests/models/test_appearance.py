"""The appearance descriptor tells people apart and knows them again."""

import cv2
import numpy as np
import pytest

from models import appearance
from models.detector import FaceDetector
from tests.models.faces import photo


@pytest.fixture(scope="module")
def group() -> tuple[np.ndarray, np.ndarray]:
    picture = photo("five_people.jpg")
    return picture, FaceDetector().detect(picture).boxes


def test_it_is_a_unit_vector(group: tuple[np.ndarray, np.ndarray]) -> None:
    picture, boxes = group
    for box in boxes:
        vector = appearance.describe(picture, box)
        assert vector.shape == (appearance.SIZE,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_same_person_later_is_nearer_than_any_other(group: tuple[np.ndarray, np.ndarray]) -> None:
    """Moved by a few pixels, darker, coarser and compressed, as in the next frames of a video."""
    picture, boxes = group
    later = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    later = cv2.imdecode(cv2.imencode(".jpg", later, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)
    later = (later * 0.75).astype(np.uint8)
    rng = np.random.default_rng(3)
    before = np.stack([appearance.describe(picture, box) for box in boxes])
    after = np.stack(
        [appearance.describe(later, box * 0.8 + rng.uniform(-0.05, 0.05, 4) * box[2] * 0.8) for box in boxes]
    )
    similarity = before @ after.T
    own = np.diag(similarity)
    others = similarity[~np.eye(len(boxes), dtype=bool)].reshape(len(boxes), -1)
    assert own.min() > 0.9
    assert (own > others.max(axis=1) + 0.02).all(), similarity.round(2)


def test_a_face_at_the_edge_and_a_grey_picture_are_described() -> None:
    picture = np.full((40, 60, 3), 128, np.uint8)
    vector = appearance.describe(picture, (50, 30, 30, 30))
    assert np.isfinite(vector).all()


def test_a_box_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the picture"):
        appearance.describe(np.zeros((40, 40, 3), np.uint8), (100, 100, 10, 10))
