"""Lasting ids: through misses and crossings, and never from one person to another."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import media, tracks
from common.tracks import MAX_TRACKS, Floats, Track, Tracker, iou
from models import appearance
from models.detector import FaceDetector

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


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(input_long_side=512)


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


def test_two_who_pass_each_other_while_nobody_sees_them_are_looked_at_again() -> None:
    tracker = Tracker()
    for k in range(20):
        see(tracker, k / RATE, (100 + 5 * k, 100, ANNA), (305 - 5 * k, 100, BERTA))
    for track in tracker.tracks:
        track.crossed = False
    for k in range(20, 24):
        see(tracker, k / RATE)
    assert all(track.crossed for track in tracker.tracks)


def test_anybody_of_the_photographs_in_the_place_of_another_is_looked_at(detector: FaceDetector) -> None:
    """As after a cut: many people look enough alike for the track to go on."""
    looks: list[tuple[str, Floats]] = []
    for name in media.SAMPLES:
        if name.endswith(".jpg"):
            picture = np.asarray(cv2.imread(str(media.sample(name))), np.uint8)
            for number, box in enumerate(detector.detect(picture).boxes):
                who = "obama" if name.startswith("obama") else f"{name} {number}"
                looks.append((who, appearance.describe(picture, box)))
    went_on = 0
    for (who, look), (other, other_look) in itertools.permutations(looks, 2):
        if who == other:
            continue
        tracker = Tracker()
        for k in range(20):
            see_one(tracker, k / RATE, look)
        track = see_one(tracker, 20 / RATE, other_look)
        went_on += track.id == 1
        assert track.id != 1 or track.crossed, (who, other)
    assert went_on > 100  # else nothing was tried


def see_one(tracker: Tracker, at_s: float, look: Floats) -> Track:
    [track] = see(tracker, at_s, (100, 100, look))
    assert track is not None
    return track


@pytest.mark.parametrize(("clip", "every"), [("woman.mp4", 8), ("man.mp4", 2)])
def test_one_person_is_not_looked_at_more_often_for_what_the_face_does(
    detector: FaceDetector, clip: str, every: int
) -> None:
    """Not even for a hand before the face."""
    tracker, seen = Tracker(), 0
    capture = cv2.VideoCapture(str(media.sample(clip)))
    for number in itertools.count():
        ok, frame = capture.read()
        if not ok:
            break
        if number % every == 0:
            picture = np.asarray(frame, np.uint8)
            found = detector.detect(picture)
            looks = np.array([appearance.describe(picture, box) for box in found.boxes]).reshape(-1, appearance.SIZE)
            seen += len(tracker.update(number / 24, found.boxes, found.scores, looks)[0])
            assert not any(track.crossed for track in tracker.tracks), number
    capture.release()
    assert seen > 30


def test_a_face_that_is_never_quite_like_itself_is_not_looked_at_all_the_time() -> None:
    tracker, chance, crossed = Tracker(), np.random.default_rng(5), []
    for k in range(300):
        look = ANNA + 0.08 * chance.normal(size=48).astype(np.float32)  # about 0.87 alike, as of a noisy camera
        track = see_one(tracker, k / RATE, look / np.linalg.norm(look))
        crossed.append(track.crossed)
        track.crossed = False
    assert sum(crossed[30:]) < 0.05 * 270


@pytest.mark.parametrize(("late_every", "rate"), [(2, 30), (5, 15)])
def test_pictures_that_come_at_once_after_a_hiccup_keep_their_ids(late_every: int, rate: int) -> None:
    """Some are held up until the next one is there: a millisecond apart, though the face has moved for much longer."""
    tracker, seen = Tracker(), set()
    for k in range(60):
        late = k % late_every == late_every - 1
        at_s = (k + 1) / rate - 0.001 if late else k / rate
        seen |= set(ids(see(tracker, at_s, (100 + 100 * k / rate, 100, ANNA), size=100)))
    assert seen == {1}


def test_a_second_of_pictures_that_come_at_once_keeps_its_ids() -> None:
    tracker, seen = Tracker(), set()
    for k in range(90):
        at_s = 2.0 - 0.001 * (60 - k) if 30 <= k < 60 else k / RATE
        seen |= set(ids(see(tracker, at_s, (100 + 3 * k, 100, ANNA), size=100)))
    assert seen == {1}


def test_a_face_that_stopped_while_it_was_missed_is_found_where_it_was() -> None:
    tracker = Tracker()
    for k in range(30):
        see(tracker, k / RATE, (100 + 40 * k, 100, ANNA))
    assert ids(see(tracker, 36 / RATE, (100 + 40 * 29, 100, ANNA))) == [1]
    assert ids(see(tracker, 42 / RATE, (100 + 40 * 29, 100, BERTA))) == [2]


@pytest.mark.parametrize(("faces", "most"), [(10, 100), (40, MAX_TRACKS)])
def test_a_picture_that_moves_too_fast_to_follow_leaves_few_tracks_behind(faces: int, most: int) -> None:
    tracker, ended, begun = Tracker(), [], set()
    looks = np.array([a_look(number) for number in range(faces)])
    for k in range(60):
        places = [(80 * (number % 10) + 45 * k, 80 * (number // 10), 40, 40) for number in range(faces)]
        found, over = tracker.update(k / 15, np.array(places, np.float32), np.ones(faces, np.float32), looks)
        begun |= set(ids(found))
        ended += [track.id for track in over]
        assert len(tracker.tracks) <= most
        assert all(track in tracker.tracks for track in found)
    assert len(begun) > 300
    assert sorted([*ended, *(track.id for track in tracker.tracks)]) == sorted(begun)  # each one once


def test_who_has_been_followed_is_not_forgotten_for_those_who_rush_past() -> None:
    tracker = Tracker()
    for k in range(10):
        see(tracker, k / RATE, (100, 100, ANNA))
    for k in range(10, 60):
        see(tracker, k / RATE, *((300 + 100 * number, 300 + 100 * k, a_look(100 + number)) for number in range(20)))
    assert ids(see(tracker, 2.0, (100, 100, ANNA))) == [1]


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300), st.integers(0, 5)), max_size=6),
        min_size=1,
        max_size=12,
    )
)
def test_few_faces_and_many_are_followed_alike(frames: list[list[tuple[float, float, int]]]) -> None:
    found = []
    for few in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracks, "FEW", few)
            tracker = Tracker()
            for k, people in enumerate(frames):
                see(tracker, k / 10, *((x, y, a_look(who)) for x, y, who in people))
            found.append([(track.id, track.box, track.crossed) for track in tracker.tracks])
    assert found[0] == found[1]


def test_tracks_go_on_in_pictures_of_another_size_and_prove_who_they_are() -> None:
    tracker = Tracker()
    for k in range(10):
        see(tracker, k / RATE, (100 + 6 * k, 300, ANNA), (900 - 6 * k, 300, BERTA))
    tracker.rescale(0.5, 0.25)
    assert all(track.crossed for track in tracker.tracks)
    assert tracker.tracks[0].box == pytest.approx((0.5 * 154, 0.25 * 300, 40, 20))
    assert tracker.tracks[0].velocity == pytest.approx((3 * RATE, 0), abs=0.5)
    for k in range(10, 20):
        boxes = np.array([(50 + 3 * k, 75, 40, 20), (450 - 3 * k, 75, 40, 20)], np.float32)
        found, _ = tracker.update(k / RATE, boxes, np.ones(2, np.float32), np.array([ANNA, BERTA]))
        assert ids(found) == [1, 2]
        assert tracker.tracks[0].velocity == pytest.approx((3 * RATE, 0), abs=0.5)


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
