"""An enrolment in view asks for the sides that are missing, takes only what adds something, and ends."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from common.collecting import ANSWER_S, COLLECT_S, EVERY_S, MOST, WANTED, Collector
from common.keeper import Keeper
from common.messages import Control
from common.recall import Enrolment
from common.settings import Config
from common.stage import Answer, ControlError
from common.trackids import TrackIds
from models.quality import turned
from stages.conductor import Conductor
from tests.common.test_conductor import Scene
from tests.people import face_of

REQUEST = "0" * 32
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


def test_it_is_answered_in_time_also_while_media_time_stands_still() -> None:
    for looks in (0, 1):
        collector, done = begun()
        if looks:
            collector.looked(7, face_of(1, 0), CHIP, 0.9, 0.0)
        for now in (5000.0, 5000.0 + ANSWER_S - 0.1):
            collector.tick(now)
        assert not done and not collector.failed and collector.progress() is not None
        collector.tick(5000.0 + ANSWER_S)
        assert len(done) == looks and collector.progress() is None
        assert [why for _, why in collector.failed] == (
            [] if looks else ["the camera gave no pictures: is it paused, or lost?"]
        )
        collector.looked(7, face_of(1, 1), CHIP, 0.9, 0.0)  # the pictures go on: it is over
        collector.expire(1e6)
        assert len(done) == looks and len(collector.failed) == 1 - looks
    assert COLLECT_S < ANSWER_S < 25.0  # as long as the command line and the window wait


class Stage(Conductor):
    """A conductor's stage without its sockets: what comes to it is said by hand."""

    def __init__(self, config: Config, scene: Scene) -> None:
        self.config = config
        self._thinking = scene.conductor
        self._keeper, self._track_ids = Keeper(config, "conductor"), TrackIds()
        self.answered: list[tuple[str, str | None]] = []

    def answer(self, request: str, result: Answer | None = None, *, error: str | None = None) -> None:
        self.answered.append((request, error))

    def asked(self, do: str, **args: Any) -> Answer | None:
        return self.control(Control(sender="test", request=REQUEST, do=do, args=args))


def seen(scene: Scene) -> int:
    """Let a face be seen; return its track."""
    scene.frame(0)
    scene.answer_all()
    [face] = scene.out.results[-1].faces
    assert face.track is not None
    return face.track


def test_an_enrolment_of_a_paused_camera_fails_in_time_and_is_not_done_later(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    stage = Stage(config, scene)
    track = seen(scene)
    assert stage.asked("enrol", camera="cam0", track=track, name="Zoe") is None
    stage._keep_people()
    assert not stage.answered
    later = time.monotonic() + ANSWER_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    stage._keep_people()
    assert stage.answered == [(REQUEST, "the camera gave no pictures: is it paused, or lost?")]
    assert not scene.conductor.lines["cam0"].naming.collector.wants(track, 0.0)


def test_what_cannot_be_is_refused_before_anybody_turns_their_head(config: Config) -> None:
    scene = Scene()
    stage = Stage(config, scene)
    for words in ({"camera": "cam0"}, {}):
        for do in ("enrol", "select"):
            with pytest.raises(ControlError, match="cam0 has given no pictures yet"):
                stage.asked(do, track=1, name="Zoe", **words)
    with pytest.raises(ControlError, match="which camera is meant"):
        stage.asked("select", camera="cam7", track=1)
    track = seen(scene)
    for field, why in (({"role": "boss"}, "a role is one of"), ({"consent_until": "soon"}, "consent ends")):
        with pytest.raises(ControlError, match=why):
            stage.asked("enrol", track=track, name="Zoe", **field)
    assert scene.conductor.lines["cam0"].naming.collector.progress() is None
    assert stage.asked("enrol", track=track, name="Zoe", role="staff") is None


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
