"""What the outputs of a detection network mean: candidates for faces, in pixels of the network's input."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CENTERFACE_OUTPUTS = frozenset({"537", "538", "539", "540"})
_CENTERFACE_STRIDE = 4
_YUNET_STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Overlapping guesses, before non-maximum suppression, in pixels of the network's input."""

    boxes: NDArray[np.float32]  # (N, 4) x, y, width, height; may reach beyond the input
    scores: NDArray[np.float32]  # (N,)
    landmarks: NDArray[np.float32]  # (N, 5, 2)


def centerface(outputs: Mapping[str, NDArray[Any]], input_size: tuple[int, int], threshold: float) -> Candidates:
    """Decode CenterFace: "537" heat map, "538" log of height and width, "539" offset, "540" landmarks, at stride 4.

    In "538" and "539" the first channel is vertical; in "540" the channels are y, x of each landmark in parts of the
    box.
    """
    heat = outputs["537"][0, 0]
    rows, columns = np.nonzero(heat > threshold)
    size = np.exp(outputs["538"][0][:, rows, columns]) * _CENTERFACE_STRIDE  # (2, N) height, width
    offset = outputs["539"][0][:, rows, columns]
    height, width = size
    x = (columns + offset[1] + 0.5) * _CENTERFACE_STRIDE - width / 2
    y = (rows + offset[0] + 0.5) * _CENTERFACE_STRIDE - height / 2
    marks = outputs["540"][0][:, rows, columns].reshape(5, 2, -1)
    landmarks = np.stack([marks[:, 1] * width + x, marks[:, 0] * height + y], axis=-1).transpose(1, 0, 2)
    boxes = np.stack([x, y, width, height], axis=1)
    return Candidates(boxes.astype(np.float32), heat[rows, columns].astype(np.float32), landmarks.astype(np.float32))


def is_yunet(names: Collection[str]) -> bool:
    """Whether these are the outputs of YuNet as OpenCV's FaceDetectorYN takes it (the files of 2023 and later)."""
    return all(f"{kind}_{stride}" in names for kind in ("cls", "obj", "bbox", "kps") for stride in _YUNET_STRIDES)


def yunet(outputs: Mapping[str, NDArray[Any]], input_size: tuple[int, int], threshold: float) -> Candidates:
    """Decode YuNet: for strides 8, 16 and 32 "cls", "obj", "bbox" and "kps", one row a cell, row by row.

    The score is the geometric mean of class and objectness; box centres and landmarks are offsets from the cell, sizes
    are logarithms.
    """
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for stride in _YUNET_STRIDES:
        class_score, objectness = (np.clip(outputs[f"{kind}_{stride}"].reshape(-1), 0, 1) for kind in ("cls", "obj"))
        scores = np.sqrt(class_score * objectness)
        cells = np.flatnonzero(scores > threshold)
        columns = input_size[0] // stride
        corner = np.stack([cells % columns, cells // columns], axis=1)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[cells]
        size = np.exp(box[:, 2:]) * stride
        boxes = np.concatenate([(corner + box[:, :2]) * stride - size / 2, size], axis=1)
        landmarks = (corner[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)[cells]) * stride
        parts.append((boxes, scores[cells], landmarks))
    boxes, scores, landmarks = (np.concatenate([part[i] for part in parts]).astype(np.float32) for i in range(3))
    return Candidates(boxes, scores, landmarks)
