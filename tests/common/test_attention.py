"""Where the detector looks: around the faces that are followed, and everywhere every so often."""

from __future__ import annotations

import itertools

import numpy as np

from common.attention import FULL_EVERY_S, LOST_S, Attention
from common.messages import MAX_FACES, Box
from common.tracks import Track

FRAME_S = 1 / 30
HD = (1280, 720)


def track(seen_s: float, box: Box = (100, 100, 60, 80), velocity: tuple[float, float] = (0, 0)) -> Track:
    return Track(1, box, 0.0, seen_s, np.zeros(4, np.float32), velocity=velocity)


def looks(faces: int, *, size: tuple[int, int] = HD, close: bool = True) -> list[tuple[Box, ...] | None]:
    """Where is looked in a second with so many faces, each of which is found in every frame."""
    attention, given = Attention(512, close=close), []
    for number in range(30):
        at_s = number * FRAME_S
        given.append(attention.choose(at_s, size, [track(at_s - FRAME_S) for _ in range(faces)]))
        attention.looked(at_s - FRAME_S)
    return given


def test_faces_that_are_followed_are_looked_at_closely_with_full_looks_in_between() -> None:
    given = looks(6)
    full = [number for number, boxes in enumerate(given) if boxes is None]
    assert full[0] == 0
    assert max(later - earlier for earlier, later in itertools.pairwise(full)) * FRAME_S < FULL_EVERY_S + FRAME_S
    assert len(full) < len(given) / 4
    assert all(len(boxes) == 6 for boxes in given if boxes is not None)


def test_it_looks_where_a_face_is_going() -> None:
    attention = Attention(512)
    attention.choose(0.0, HD, [])
    assert attention.choose(0.1, HD, [track(0.0, velocity=(300, -100))]) == ((130.0, 90.0, 60.0, 80.0),)


def test_everywhere_where_close_looks_would_save_nothing() -> None:
    assert set(looks(0)) == {None}
    assert set(looks(40)) == {None}, "so many close looks cost more than a full one"
    assert set(looks(1, size=(128, 96))) == {None}, "the whole picture is as small"
    assert set(looks(3, close=False)) == {None}


def test_a_face_that_a_close_look_missed_is_looked_for_everywhere_once() -> None:
    attention, missing = Attention(512), track(0.0)
    assert attention.choose(0.0, HD, [missing]) is None
    attention.looked(0.0)
    assert attention.choose(FRAME_S, HD, [missing]) is not None
    attention.looked(FRAME_S)  # and it was not there
    assert attention.choose(2 * FRAME_S, HD, [missing]) is None
    attention.looked(2 * FRAME_S)  # not even then
    assert attention.choose(3 * FRAME_S, HD, [missing]) is not None


def test_who_is_gone_for_good_is_not_looked_for() -> None:
    attention, gone = Attention(512), track(0.0)
    at_s = LOST_S + 1.0
    attention.choose(at_s, HD, [gone])
    attention.looked(at_s)
    here = track(at_s, (500, 300, 60, 80))
    assert attention.choose(at_s + FRAME_S, HD, [gone, here]) == ((500.0, 300.0, 60.0, 80.0),)
    assert attention.choose(at_s + 2 * FRAME_S, HD, [gone]) is None


def test_a_source_that_begins_again_is_looked_at_everywhere() -> None:
    attention = Attention(512)
    attention.choose(100.0, HD, [track(100.0)])
    assert attention.choose(1.0, HD, [track(1.0)]) is None


def test_a_face_that_only_full_looks_find_does_not_blink() -> None:
    attention, seen_s, found = Attention(512), 0.0, 0
    for number in range(120):
        at_s = number * FRAME_S
        if attention.choose(at_s, HD, [track(seen_s)]) is None:
            seen_s, found = at_s, found + 1
        attention.looked(at_s)
    assert found > 0.9 * 120


def test_a_face_whose_motion_leads_out_of_the_picture_is_not_looked_for_there() -> None:
    attention = Attention(512)
    attention.choose(0.0, HD, [])
    leaving, here = track(0.0, velocity=(40_000, 30_000)), track(0.0, (500, 300, 60, 80))
    assert attention.choose(0.1, HD, [leaving, here]) == ((500.0, 300.0, 60.0, 80.0),)
    assert attention.choose(0.12, HD, [leaving]) is None


def test_more_faces_than_a_frame_may_have_are_looked_for_everywhere() -> None:
    attention = Attention(4096)
    crowd = [track(0.0) for _ in range(MAX_FACES + 1)]
    attention.choose(0.0, (3840, 2160), [])
    assert attention.choose(FRAME_S, (3840, 2160), crowd[:-1]) is not None
    assert attention.choose(2 * FRAME_S, (3840, 2160), crowd) is None
