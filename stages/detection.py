"""The detection worker: a frame in; boxes, landmarks, quality, and the crops the other two need out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from common.messages import MAX_FACES, DetectionFinding, DetectionJob, Message
from common.pixels import decode
from common.ring import RingReader
from common.stage import StageError, main
from common.tracks import near_known
from common.worker import Worker
from models import appearance, chips, crop, quality
from models.detector import FaceDetector
from models.runtime import ModelError


class Detection(Worker[DetectionJob]):
    """Finds the faces of a frame."""

    name: ClassVar[str] = "detection"
    pool: ClassVar[Literal["detection"]] = "detection"
    job_kind: ClassVar[type[Message]] = DetectionJob

    @property
    def finding_kind(self) -> type[Message]:
        return DetectionFinding

    def load(self) -> None:
        cv2.setNumThreads(self.config.workers.threads)
        settings = self.config.detection
        self._shared = RingReader(self.config)
        self._limits = quality.Limits(min_size_px=settings.min_face_px)
        try:
            self._detector = FaceDetector(
                settings.model,
                input_long_side=settings.input_long_side,
                score_threshold=settings.score_threshold,
                threads=self.config.workers.threads,
                precision=settings.precision,
                cache_dir=self.config.storage.data_dir / "compiled",
            )
            self._detector.prepare(1280, 720)
            if settings.adapt_input and self.config.privacy.blur == "none":
                self._detector.prepare_near()
        except ModelError as error:
            raise StageError(str(error)) from error
        # OpenCV makes tables at the first use: 0.1 s that the first face would wait for.
        blank = np.zeros((64, 64, 3), np.uint8)
        appearance.describe(blank, np.array((16, 16, 32, 32), np.float32))
        self.log.info("ready (%s)", self._detector.precision)

    def work(self, job: DetectionJob, blobs: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        if job.slot is not None:
            picture = self._shared.picture(job.slot, job.width, job.height)
        else:
            picture = decode(blobs[0] if len(blobs) == 1 else b"", job.encoding, job.width, job.height)
        found = self._detector.detect(picture, job.near)
        boxes, landmarks = found.boxes[:MAX_FACES], found.landmarks[:MAX_FACES]
        qualities = np.zeros((len(boxes), 7), np.float32)
        looks = np.zeros((len(boxes), appearance.SIZE), np.float32)
        reasons: list[str | None] = []
        crops, patches = [], []
        known = np.zeros(len(boxes), np.bool_)
        if job.known is not None:
            known = near_known(boxes, np.array(job.known, np.float32).reshape(-1, 4))
        for face, (box, points) in enumerate(zip(boxes, landmarks, strict=True)):
            measured = quality.assess(picture, box, points)
            qualities[face] = (
                quality.score(measured),
                measured.size_px,
                measured.sharpness,
                measured.turn,
                measured.brightness,
                measured.contrast,
                measured.edge_cut,
            )
            looks[face] = appearance.describe(picture, box)
            reasons.append(quality.reason(measured, self._limits))
            if reasons[-1] is None:
                crops.append(crop.cut(picture, crop.face_square(box, points)))
            if not known[face]:
                patches.append((face, chips.cut_patch(picture, box)))
        if job.slot is not None:
            self._shared.check(job.slot, job.width, job.height)  # or this would be of two pictures
        fields = {
            "count": len(boxes),
            "more": len(found.boxes) - len(boxes),
            "crop_size": crop.SIZE,
            "reasons": tuple(reasons),
            "patch_faces": tuple(face for face, _ in patches),
            "patch_shapes": tuple(patch.pixels.shape[:2] for _, patch in patches),
            "patch_boxes": tuple(tuple(float(side) for side in patch.box) for _, patch in patches),
        }
        cut = np.stack(crops) if crops else np.zeros((0, crop.SIZE, crop.SIZE), np.uint8)
        arrays = [boxes, found.scores[:MAX_FACES], landmarks, qualities, looks, cut]
        return fields, [np.ascontiguousarray(array) for array in arrays] + [patch.pixels for _, patch in patches]


if __name__ == "__main__":
    sys.exit(main(Detection))
