"""How closely the detector looks: as closely as the smallest face in view needs, and in full every so often."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from common.detail import FULL_EVERY_S, RUNGS, Detail
from common.tracks import Track

FRAME_S = 1 / 30


def track(side: float, seen_s: float) -> Track:
    box = np.array([100, 100, side, side], np.float32)
    return Track(1, box, 0.0, seen_s, np.zeros(4, np.float32))


def looks(side: float, frames: int = 30, **options: bool) -> list[float]:
    detail, given = Detail(512, **options), []
    for number in range(frames):
        at_s = number * FRAME_S
        given.append(detail.choose(at_s, 1280, [track(side, at_s - FRAME_S)] if side else []))
        detail.looked(at_s - FRAME_S)
    return given


def test_a_large_face_is_looked_at_small_with_full_looks_in_between() -> None:
    given = looks(200)
    assert set(given) == {RUNGS[0], 1.0}
    full = [number for number, share in enumerate(given) if share == 1.0]
    assert full[0] == 0
    assert max(later - earlier for earlier, later in itertools.pairwise(full)) * FRAME_S < FULL_EVERY_S + FRAME_S
    assert len(full) < len(given) / 3


def test_smaller_faces_need_more_and_the_smallest_everything() -> None:
    assert set(looks(70)) == {RUNGS[0], 1.0}
    assert set(looks(60)) == {1.0}


def test_without_faces_or_without_leave_it_is_always_full() -> None:
    assert set(looks(0)) == {1.0}
    assert set(looks(200, adapt=False)) == {1.0}


def test_a_face_that_was_missed_is_looked_for_in_full() -> None:
    detail = Detail(512)
    assert detail.choose(0.0, 1280, [track(200, 0.0)]) == 1.0
    detail.looked(0.0)
    assert detail.choose(FRAME_S, 1280, [track(200, 0.0)]) == RUNGS[0]
    detail.looked(FRAME_S)  # and it was not there
    assert detail.choose(2 * FRAME_S, 1280, [track(200, 0.0)]) == 1.0


def test_a_source_that_begins_again_is_looked_at_in_full() -> None:
    detail = Detail(512)
    detail.choose(100.0, 1280, [track(200, 100.0)])
    assert detail.choose(1.0, 1280, [track(200, 1.0)]) == pytest.approx(1.0)
