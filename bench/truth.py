"""Scores results on the crowd scene against its truth: recall, precision, ids that moved. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.crowd import FaceTruth, FrameTruth

MIN_IOU = 0.4
MIN_HEIGHT = 40.0  # px; smaller faces are not asked for

Box = Sequence[float]  # x, y, width, height in pixels
Found = tuple[Box, int | None]  # and its track id, None where there is none


@dataclass(frozen=True, slots=True)
class Score:
    """How well results fit the truth.

    Attributes:
        frames: compared.
        expected: faces that had to be found: at least 40 px high, not hidden, not turned away.
        found: of those.
        surplus: boxes on no face at all, not even on a hidden, small or turned one.
        id_switches: times a track id was on one person and then on another.
        ids_per_person: how many ids each person had; 1 is perfect for one who never left.
    """

    frames: int
    expected: int
    found: int
    surplus: int
    id_switches: int
    ids_per_person: Mapping[str, int]

    @property
    def recall(self) -> float:
        """Found of expected; nan when nothing was expected."""
        return self.found / self.expected if self.expected else float("nan")

    @property
    def precision(self) -> float:
        """Found of found and surplus; nan when nothing was found."""
        return self.found / (self.found + self.surplus) if self.found + self.surplus else float("nan")


def score(results: Mapping[int, Sequence[Found]], truth: Sequence[FrameTruth]) -> Score:
    """Compare the results of some frames (by frame number; those of a looped scene modulo its length) with the truth.

    A frame that is missing from ``results`` was not analysed and is not counted. An id that is on one person and later
    on another counts as a switch, however long the time between. The looped scene begins anew: score rounds one by one.
    """
    expected = found = surplus = switches = 0
    owner: dict[int, int] = {}  # track id -> person
    ids: dict[str, set[int]] = defaultdict(set)
    for number in sorted(results):
        frame, boxes = truth[number], results[number]
        wanted = [face for face in frame.faces if is_expected(face)]
        others = [face for face in frame.faces if not is_expected(face)]
        expected += len(wanted)
        pairs = match([face.box for face in wanted], [box for box, _ in boxes])
        found += len(pairs)
        for face_index, box_index in pairs:
            face, track = wanted[face_index], boxes[box_index][1]
            if track is None:
                continue
            ids[face.name].add(track)
            switches += owner.get(track, face.person) != face.person
            owner[track] = face.person
        # What is on somebody of whom nothing was expected is neither right nor wrong.
        left = [box for index, (box, _) in enumerate(boxes) if index not in {index for _, index in pairs}]
        surplus += len(left) - len(match([face.box for face in others], left))
    return Score(len(results), expected, found, surplus, switches, {name: len(ids[name]) for name in sorted(ids)})


def is_expected(face: FaceTruth) -> bool:
    """Whether a face has to be found."""
    return face.height >= MIN_HEIGHT and not face.hidden and not face.turned


def match(wanted: Sequence[Box], found: Sequence[Box]) -> list[tuple[int, int]]:
    """Pairs (index in ``wanted``, index in ``found``) that overlap by at least 0.4, the best first, each used once."""
    if not wanted or not found:
        return []
    overlap = iou(np.asarray(wanted, np.float64), np.asarray(found, np.float64))
    pairs: list[tuple[int, int]] = []
    while overlap.max() >= MIN_IOU:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((int(row), int(column)))
        overlap[row, :] = overlap[:, column] = -1
    return pairs


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4), each x, y, width, height: (N, M)."""
    upper = np.maximum(a[:, None, :2], b[None, :, :2])
    lower = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    shared = np.clip(lower - upper, 0, None).prod(axis=2)
    areas = a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1)[None, :] - shared
    overlap: NDArray[np.float64] = np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)
    return overlap
