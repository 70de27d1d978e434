"""Lasting ids: through misses and crossings, and never from one person to another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tracks import Floats, Track, Tracker, iou

RATE = 30.0


def a_look(seed: int) -> Floats:
    vector = np.random.default_rng(seed).normal(size=48).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


ANNA, BERTA = a_look(1), a_look(2)


def see(tracker: Tracker, at_s: float, *people: tuple[float, float, Floats], size: float = 80.0) -> list[Track | None]:
    boxes = np.array([(x, y, size, size) for x, y, _ in people], np.float32).reshape(-1, 4)
    looks = np.array([look for _, _, look in people], np.float32).reshape(-1, 48)
    return tracker.update(at_s, boxes, np.full(len(people), 0.9, np.float32), looks)[0]


def ids(tracks: list[Track | None]) -> list[int]:
    assert all(tracks)
    return [track.id for track in tracks if track]


def test_a_walking_face_keeps_its_id() -> None:
    tracker = Tracker()
    seen = {ids(see(tracker, k / RATE, (5 * k, 100, ANNA)))[0] for k in range(100)}
    assert seen == {1}


@pytest.mark.parametrize("missed_s", [0.2, 1.0, 2.0])
def test_a_face_that_was_missed_is_found_again(missed_s: float) -> None:
    tracker = Tracker()
    for k in range(30):
        see(tracker, k / RATE, (100, 100, ANNA))
    for k in range(int(missed_s * RATE)):
        see(tracker, 1.0 + k / RATE)
    assert ids(see(tracker, 1.0 + missed_s, (110, 105, ANNA))) == [1]


def test_after_too_long_a_face_is_somebody_new_and_its_id_is_not_used_again() -> None:
    tracker = Tracker()
    see(tracker, 0.0, (100, 100, ANNA))
    assert ids(see(tracker, 60.0, (100, 100, ANNA))) == [2]


def test_two_who_pass_each_other_keep_their_ids() -> None:
    tracker = Tracker()
    for k in range(121):
        left, right = (10 + 5 * k, 100, ANNA), (610 - 5 * k, 110, BERTA)
        hidden = abs(left[0] - right[0]) < 50  # Anna passes in front
        assert ids(see(tracker, k / RATE, *((left,) if hidden else (left, right)))) == ([1] if hidden else [1, 2])


def test_an_id_does_not_move_to_somebody_else_who_stands_there_now() -> None:
    tracker = Tracker()
    for k in range(30):
        see(tracker, k / RATE, (100, 100, ANNA))
    assert ids(see(tracker, 1.8, (105, 100, BERTA))) == [2]


def test_two_who_look_alike_and_overlap_get_new_ids_rather_than_each_others() -> None:
    tracker = Tracker()
    for k in range(10):
        see(tracker, k / RATE, (100, 100, ANNA), (150, 100, ANNA))
    [track] = see(tracker, 10 / RATE, (125, 100, ANNA))  # one of the two; nobody can say which
    assert track is not None and track.id == 3


def test_a_track_that_was_lost_does_not_beget_new_ids_for_ever() -> None:
    tracker = Tracker()
    for k in range(10):
        see(tracker, k / RATE, (100, 100, ANNA), (150, 100, ANNA))
    seen = {ids(see(tracker, (10 + k) / RATE, (125, 100, ANNA)))[0] for k in range(30)}
    assert seen == {3}


def test_near_others_a_track_is_marked_so_that_identity_looks_again() -> None:
    tracker = Tracker()
    see(tracker, 0.0, (100, 100, ANNA), (400, 100, BERTA))
    assert not any(track.crossed for track in tracker.tracks)
    see(tracker, 1 / RATE, (100, 100, ANNA), (140, 100, BERTA))
    see(tracker, 2 / RATE, (100, 100, ANNA), (140, 100, BERTA))
    assert any(track.crossed for track in tracker.tracks)


def test_who_was_out_of_sight_for_a_while_is_looked_at_again() -> None:
    tracker = Tracker()
    see(tracker, 0.0, (100, 100, ANNA))
    for k in range(20):
        see(tracker, (k + 1) / RATE)
    [track] = see(tracker, 21 / RATE, (100, 100, ANNA))
    assert track is not None and track.id == 1 and track.crossed


def test_a_weak_detection_continues_a_track_and_begins_none() -> None:
    tracker = Tracker()
    weak = np.array([0.4], np.float32)
    box = np.array([[100, 100, 80, 80]], np.float32)
    assert tracker.update(0.0, box, weak, ANNA[None])[0] == [None]
    see(tracker, 0.1, (100, 100, ANNA))
    assert ids(tracker.update(0.2, box, weak, ANNA[None])[0]) == [1]


def test_overlap_is_intersection_over_union() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 10, 10]], np.float32)
    assert iou(a, b)[0] == pytest.approx([50 / 150, 0.0, 1.0])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 600), st.integers(0, 5)), max_size=6),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_is_seen_no_frame_has_an_id_twice_and_ids_only_grow(
    frames: list[list[tuple[float, float, int]]],
) -> None:
    tracker, newest = Tracker(), 0
    for k, people in enumerate(frames):
        found = ids(see(tracker, k / RATE, *((x, y, a_look(who)) for x, y, who in people)))
        assert len(found) == len(set(found)) == len(people)
        fresh = [number for number in found if number > newest]
        newest = max([newest, *fresh])
        assert all(number <= newest for number in found)
