"""The detection worker: what it says of a picture, with the real detector."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from common.detected import detected_from
from common.messages import MAX_FACES, DetectionFinding, DetectionJob
from common.settings import Config
from models.detector import FaceDetector
from stages.detection import Detection
from tests.models.faces import photo
from tests.people import own_data_dir


@pytest.mark.parametrize(("rows", "more"), [(2, 0), (8, 8)])
def test_of_a_crowd_it_says_how_many_faces_it_has_found_beyond_those_that_it_tells_of(
    config: Config, rows: int, more: int
) -> None:
    storage = config.storage.model_copy(update={"data_dir": own_data_dir(config.run_dir / "data")})
    worker = Detection(config.model_copy(update={"storage": storage}))
    try:
        worker.load()
        crowd = np.ascontiguousarray(np.tile(_face(worker._detector), (rows, 9, 1)))
        height, width = crowd.shape[:2]
        job = DetectionJob(
            sender="conductor.test.1", camera="cam0", run=1, seq=0, captured_at=0.0, job=1, width=width, height=height,
            encoding="raw",
        )  # fmt: skip
        fields, blobs = worker.work(job, [crowd])
    finally:
        worker._inbox.close()
        worker.news.close()
    finding = DetectionFinding(sender="detection.test.1", job=1, work_ms=1.0, **fields)
    assert (finding.count, finding.more) == (min(9 * rows, MAX_FACES), more)
    assert len(detected_from(finding, blobs, width, height).boxes) == finding.count


def _face(detector: FaceDetector) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """A face of 70 pixels with what is around it, (70, 70, 3) uint8 BGR."""
    portrait = photo("portrait_happy.jpg")
    x, y, width, height = detector.detect(portrait).boxes[0]
    side = int(1.5 * max(width, height))
    left, top = max(0, int(x + width / 2 - side / 2)), max(0, int(y + height / 2 - side / 2))
    return np.asarray(cv2.resize(portrait[top : top + side, left : left + side], (70, 70)), np.uint8)
