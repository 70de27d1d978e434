"""An enrolment in view asks for the sides that are missing, takes only what adds something, and ends."""

from __future__ import annotations

import numpy as np

from common.collecting import COLLECT_S, EVERY_S, MOST, WANTED, Collector
from common.recall import Enrolment
from models.quality import turned
from tests.people import face_of

CHIP = np.zeros((150, 150, 3), np.uint8)


def begun() -> tuple[Collector, list[Enrolment]]:
    done: list[Enrolment] = []
    collector = Collector(done.append)
    collector.begin(Enrolment(request="r", name="Ada", fields={}), 7, 100.0)
    return collector, done


def shown(collector: Collector) -> tuple[int, str | None]:
    progress = collector.progress()
    assert progress is not None and progress.track == 7 and progress.wanted >= WANTED
    return progress.pictures, progress.turn


def test_it_leads_from_the_front_to_both_sides_and_is_done_with_all() -> None:
    collector, done = begun()
    assert shown(collector) == (0, "front")
    collector.looked(7, face_of(1, 0), CHIP, 0.9, 0.02)
    assert shown(collector) == (1, "left")
    collector.looked(7, face_of(1, 1), CHIP, 0.9, 0.3)
    assert shown(collector) == (2, "right")
    for look in (2, 3, 4, 5):  # more of the left does not help: two of it are enough
        collector.looked(7, face_of(1, look), CHIP, 0.9, 0.3)
    assert shown(collector) == (1 + MOST["left"], "right")
    collector.looked(7, face_of(1, 6), CHIP, 0.9, -0.3)
    assert shown(collector) == (4, None) and not done
    collector.looked(7, face_of(1, 7), CHIP, 0.9, -0.3)
    assert [len(order.looks) for order in done] == [WANTED] and collector.progress() is None


def test_poor_crops_and_the_same_again_are_left_out() -> None:
    collector, _ = begun()
    collector.looked(7, face_of(1, 0), CHIP, 0.3, 0.0)
    collector.looked(8, face_of(1, 0), CHIP, 0.9, 0.0)  # somebody else's track
    assert shown(collector)[0] == 0
    collector.looked(7, face_of(1, 0), CHIP, 0.9, 0.0)
    collector.looked(7, face_of(1, 0) + np.float32(0.001), CHIP, 0.9, 0.3)
    assert shown(collector)[0] == 1


def test_after_a_while_or_when_the_face_is_gone_it_takes_what_there_is() -> None:
    for end in (lambda c: c.expire(100.0 + COLLECT_S), lambda c: c.ended(7)):
        collector, done = begun()
        collector.looked(7, face_of(1, 0), CHIP, 0.9, 0.0)
        collector.expire(100.0 + COLLECT_S / 2)
        assert not done
        end(collector)
        assert [len(order.looks) for order in done] == [1] and not collector.failed
        collector, done = begun()
        end(collector)
        assert not done and "no good crop" in collector.failed[0][1]


def test_looks_are_asked_for_at_a_pace() -> None:
    collector, _ = begun()
    assert collector.wants(7, 100.0) and not collector.wants(8, 100.0)
    collector.asked(7, 100.0)
    assert not collector.wants(7, 100.0 + EVERY_S / 2) and collector.wants(7, 100.0 + EVERY_S)


def test_a_nose_to_the_right_of_the_picture_is_a_head_turned_to_its_own_left() -> None:
    eyes_and_mouth = [(100, 100), (160, 100), (130, 140), (108, 170), (152, 170)]
    front, left = np.array(eyes_and_mouth, float), np.array(eyes_and_mouth, float)
    left[2, 0] += 20
    assert abs(turned(front)) < 0.01 and 0.2 < turned(left) < 0.6
    mirrored = left.copy()
    mirrored[:, 0] = 260 - mirrored[[1, 0, 2, 4, 3], 0]
    mirrored[:, 1] = mirrored[[1, 0, 2, 4, 3], 1]
    assert turned(mirrored) == -turned(left)
