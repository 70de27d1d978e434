"""The shown label: calm, yet a lasting change shows within half a second, and what cannot be seen is not guessed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from common.smoothing import HOLD_S, Look, Smoother

RATE = 30.0


def sure(label: str, probability: float = 0.8) -> NDArray[np.float64]:
    rest = (1 - probability) / (len(EXPRESSIONS) - 1)
    return np.array([probability if name == label else rest for name in EXPRESSIONS])


def between(first: str, second: str, share: float) -> NDArray[np.float64]:
    return share * sure(first, 1.0) + (1 - share) * sure(second, 1.0)


def a_smoother() -> Smoother:
    return Smoother(settle_ms=250, margin=0.08)


def shown(smoother: Smoother, frames: list[NDArray[np.float64]], start_s: float = 0.0) -> list[Look]:
    return [smoother.update(start_s + index / RATE, frame) for index, frame in enumerate(frames)]


def test_one_odd_frame_changes_nothing() -> None:
    looks = shown(a_smoother(), [sure("neutral")] * 30 + [sure("angry", 0.95)] * 2 + [sure("neutral")] * 30)
    assert {look.label for look in looks} == {"neutral"}


@pytest.mark.parametrize("probability", [0.95, 0.6, 0.4])
@pytest.mark.parametrize("rate", [10.0, 30.0])
def test_a_lasting_change_shows_within_half_a_second(probability: float, rate: float) -> None:
    smoother = a_smoother()
    for index in range(60):
        smoother.update(index / rate, sure("neutral", probability))
    changed_at = 60 / rate
    for index in range(60):
        at = changed_at + index / rate
        if smoother.update(at, sure("sad", probability)).label == "sad":
            assert at - changed_at <= 0.5
            return
    pytest.fail("the change never showed")


def test_a_narrow_but_lasting_lead_shows_too() -> None:
    smoother = a_smoother()
    shown(smoother, [between("neutral", "sad", 0.55)] * 60)
    looks = shown(smoother, [between("neutral", "sad", 0.47)] * 30, start_s=2.0)
    assert looks[0].label == "neutral"
    assert looks[15].label == "sad"


def test_an_even_flicker_does_not_show() -> None:
    frames = [between("neutral", "sad", 0.62 if index % 2 else 0.40) for index in range(120)]
    labels = [look.label for look in shown(a_smoother(), frames)]
    assert sum(a != b for a, b in itertools.pairwise(labels)) <= 1


def test_a_short_gap_is_bridged_and_a_longer_one_is_said_with_its_reason() -> None:
    smoother = a_smoother()
    shown(smoother, [sure("happy")] * 10)
    assert smoother.update(0.4, None, "turned").label == "happy"
    look = smoother.update(0.9, None, "turned")
    assert (look.status, look.reason, look.label) == ("cannot_assess", "turned", None)


@pytest.mark.parametrize("every", [2, 10, 30])
def test_a_face_at_the_limit_of_what_can_be_judged_does_not_flicker_between_a_label_and_a_reason(every: int) -> None:
    smoother = a_smoother()
    said = [
        smoother.update(index / RATE, *((sure("happy"), None) if index % every == 1 else (None, "small")))
        for index in range(300)
    ]
    assert {(look.status, look.reason) for look in said} == {("cannot_assess", "small")}
    back = [smoother.update((300 + index) / RATE, sure("happy")) for index in range(10)]
    assert back[0].label is None and back[-1].label == "happy"


def test_where_pictures_are_rare_one_that_can_be_judged_is() -> None:
    smoother = a_smoother()
    assert smoother.update(0.0, None, "small").status == "cannot_assess"
    assert smoother.update(1.0, sure("sad")).label == "sad"


def test_a_face_that_was_never_judged_is_pending_or_says_why_not() -> None:
    assert a_smoother().update(0.0, None).status == "pending"
    assert a_smoother().update(0.0, None, "small") == Look("cannot_assess", reason="small")
    waits = a_smoother()
    waits.update(0.0, None, "turned")
    assert waits.update(1.0, None) == Look("pending")  # it could be judged now, and nobody has


def test_after_a_long_gap_the_past_does_not_count() -> None:
    smoother = a_smoother()
    shown(smoother, [sure("sad")] * 60)
    assert smoother.update(10.0, sure("happy")).label == "happy"


def test_answers_that_come_late_make_the_label_of_the_frames_that_follow() -> None:
    smoother = a_smoother()
    assert smoother.update(0.0, None).status == "pending"
    smoother.late(0.0, sure("sad"))
    assert smoother.update(0.1, None).label == "sad"


@pytest.mark.parametrize("late_s", [0.1, 0.3, 0.6, 0.9])
def test_a_label_is_held_until_the_next_late_answer_but_not_for_long_after_the_last(late_s: float) -> None:
    smoother, frames = a_smoother(), int(late_s * RATE)
    said = []
    for index in range(10 * frames + 100):
        asked, arrives = divmod(index, frames)
        if not arrives and 1 <= asked <= 10:  # for the frame that came when the worker was free last
            smoother.late((asked - 1) * frames / RATE, sure("sad"))
        said.append(smoother.update(index / RATE, None).status)
    assert set(said[frames : 10 * frames]) == {"ok"}
    assert "ok" not in said[9 * frames + int(2.1 * RATE) :]


def test_an_answer_in_time_ends_the_longer_hold() -> None:
    smoother = a_smoother()
    smoother.update(0.9, None)
    smoother.late(0.0, sure("sad"))
    smoother.update(1.0, sure("sad"))
    assert smoother.update(1.25, None).status == "ok"
    assert smoother.update(1.4, None).status == "pending"


def test_a_face_that_cannot_be_assessed_loses_its_label_soon_also_where_answers_are_late() -> None:
    smoother = a_smoother()
    for frame in range(60):
        smoother.update(frame / RATE, None)
        if frame >= 24:
            smoother.late((frame - 24) / RATE, sure("sad"))
    for frame in range(60, 90):
        at_s = frame / RATE
        look = smoother.update(at_s, None, "turned")
        if at_s >= 2.0 + 2 * HOLD_S:
            assert (look.status, look.reason) == ("cannot_assess", "turned")


def test_a_late_answer_older_than_what_is_known_changes_nothing() -> None:
    smoother = a_smoother()
    shown(smoother, [sure("happy")] * 10, start_s=1.0)
    before = smoother.update(1.4, None)
    smoother.late(0.5, sure("sad"))
    after = smoother.update(1.4, None)
    assert after.label == before.label == "happy" and after.confidence == before.confidence


def test_a_late_answer_does_not_hide_why_a_face_cannot_be_assessed_since() -> None:
    smoother = a_smoother()
    smoother.update(0.0, None)
    for index in range(1, 10):
        smoother.update(index / RATE, None, "turned")
    smoother.late(0.0, sure("sad"))
    assert smoother.update(10 / RATE, None, "turned") == Look("cannot_assess", reason="turned")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(0.001, 1.0), min_size=7, max_size=7), min_size=1, max_size=50))
def test_whatever_comes_the_average_is_a_distribution(rows: list[list[float]]) -> None:
    smoother = a_smoother()
    for index, row in enumerate(rows):
        look = smoother.update(index / RATE, np.array(row) / sum(row))
        assert look.smoothed is not None and look.confidence is not None
        assert look.smoothed.sum() == pytest.approx(1.0)
        assert 0 <= look.confidence <= 1 + 1e-9
