"""What the detector found in one frame, as arrays that are known to fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.messages import DetectionFinding, MessageError, array_from

QUALITIES = 7
APPEARANCE = 48

Floats = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class Detected:
    """A detection finding with its arrays checked; N faces, A of them assessable."""

    finding: DetectionFinding
    boxes: Floats  # (N, 4) x, y, w, h, pixels
    scores: Floats  # (N,)
    landmarks: Floats  # (N, 5, 2) pixels
    qualities: Floats  # (N, 7), the first is the score 0..1 that counts in votes
    appearances: Floats  # (N, 48)
    crops: NDArray[np.uint8]  # (A, S, S)
    patches: dict[int, Any]  # face → bytes of its identity patch

    @property
    def assessable(self) -> list[int]:
        """The faces that have a crop, in the order of ``crops``."""
        return [face for face, reason in enumerate(self.finding.reasons) if reason is None]


def detected_from(finding: DetectionFinding, blobs: Sequence[Any], width: int, height: int) -> Detected:
    """Return a finding with its blobs as arrays, for a picture of ``width`` × ``height`` pixels.

    Raises:
        MessageError: the arrays do not fit what the map says, or a box lies outside the picture.
    """
    count, size = finding.count, finding.crop_size
    patches = len(finding.patch_faces)
    if len(finding.reasons) != count or len(blobs) != 6 + patches:
        raise MessageError(f"detection: {count} faces and {len(blobs)} parts do not fit together")
    if not patches == len(finding.patch_shapes) == len(finding.patch_boxes):
        raise MessageError("detection: patches, their shapes and their boxes differ in number")
    if any(face >= count for face in finding.patch_faces):
        raise MessageError("detection: a patch of a face that was not found")
    boxes = array_from(blobs[0], (count, 4), np.float32, "boxes")
    inside = (boxes[:, :2] >= -0.5).all() and (boxes[:, 2:] > 0).all()
    inside &= (boxes[:, :2] + boxes[:, 2:] <= np.array([width, height]) + 0.5).all()
    if not inside:
        raise MessageError("detection: a box outside the picture")
    assessable = sum(reason is None for reason in finding.reasons)
    for (rows, columns), blob in zip(finding.patch_shapes, blobs[6:], strict=True):
        array_from(blob, (rows, columns, 3), np.uint8, "patch")
    return Detected(
        finding=finding,
        boxes=boxes,
        scores=array_from(blobs[1], (count,), np.float32, "scores"),
        landmarks=array_from(blobs[2], (count, 5, 2), np.float32, "landmarks"),
        qualities=array_from(blobs[3], (count, QUALITIES), np.float32, "qualities"),
        appearances=array_from(blobs[4], (count, APPEARANCE), np.float32, "appearances"),
        crops=array_from(blobs[5], (assessable, size, size), np.uint8, "crops"),
        patches=dict(zip(finding.patch_faces, blobs[6:], strict=True)),
    )
