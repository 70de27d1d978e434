"""The torch way of the expression network: the same answers as the compiled graph. No GPU needed, nor looked for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.media import sample
from models import gpu
from models.crop import cut, face_square
from models.detector import FaceDetector
from models.expression import START, ExpressionClassifier
from models.runtime import ModelError


def test_torch_and_the_compiled_graph_agree_on_real_faces() -> None:
    compiled = ExpressionClassifier(precision="f32")
    by_torch = gpu.TorchExpressionClassifier(START, device="cpu")
    photo = np.asarray(cv2.imread(str(sample("five_people.jpg"))), np.uint8)
    found = FaceDetector().detect(photo)
    assert by_torch.size == compiled.size
    pairs = zip(found.boxes, found.landmarks, strict=True)
    faces = np.stack([cut(photo, face_square(box, points), compiled.size) for box, points in pairs])
    assert len(faces) == 5
    # Weights are kept in half precision, once before and once after normalization is folded into them.
    assert by_torch.classify(faces) == pytest.approx(compiled.classify(faces), abs=0.01)
    assert by_torch.classify(faces[:0]).shape == (0, 7)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.pt"):
        gpu.TorchExpressionClassifier(tmp_path / "nothing.pt", device="cpu")


def test_the_driver_is_asked_without_importing_torch() -> None:
    assert gpu.cuda_devices() >= 0
    assert gpu.usable() in (True, False)
