"""YuNet, for those who configure a file of their own: its graph, taken as it is, and what its outputs mean.

The files of 2023 and later, as OpenCV's FaceDetectorYN takes them (Wu et al., "YuNet: A Tiny Millisecond-level Face
Detector", 2023).
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import preprocess

from models.runtime import ModelError

_STRIDES = (8, 16, 32)
_KINDS = ("cls", "obj", "bbox", "kps")


def matches(names: Collection[str]) -> bool:
    """Whether these are the names of YuNet's outputs: cls_8, obj_8, bbox_8, kps_8 and the same for 16 and 32."""
    return all(f"{kind}_{stride}" in names for kind in _KINDS for stride in _STRIDES)


def build(model: openvino.Model, path: Path, width: int, height: int) -> openvino.Model:
    """The graph with an input of (1, height, width, 3) float32 BGR, 0 to 255; `width` and `height` are multiples of 32.

    Raises ModelError when the file's graph cannot take this size.
    """
    try:
        model.reshape([1, 3, height, width])
        steps = preprocess.PrePostProcessor(model)
        steps.input().tensor().set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        return steps.build()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"the model file {path} cannot take pictures of {width}×{height}: {reason}") from error


def decode(
    outputs: Mapping[str, NDArray[Any]], width: int, threshold: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Boxes (N, 4) x, y, width, height, scores (N,) and landmarks (N, 5, 2) above `threshold`, in pixels of the input.

    For each stride one row a cell, row by row: the score is the geometric mean of "cls" and "obj"; "bbox" holds the
    centre's offset and the logarithm of the size, "kps" the landmarks' offsets, all in cells. `width` is the input's.
    """
    parts = []
    for stride in _STRIDES:
        class_score, objectness = (np.clip(outputs[f"{kind}_{stride}"].reshape(-1), 0, 1) for kind in ("cls", "obj"))
        scores = np.sqrt(class_score * objectness)
        found = np.flatnonzero(scores > threshold)
        columns = width // stride
        cell = np.stack([found % columns, found // columns], axis=1)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[found]
        size = np.exp(box[:, 2:]) * stride
        boxes = np.concatenate([(cell + box[:, :2]) * stride - size / 2, size], axis=1)
        landmarks = (cell[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)[found]) * stride
        parts.append((boxes, scores[found], landmarks))
    boxes, scores, landmarks = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return boxes, scores, landmarks
