"""When identity looks, and what the looks say together."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from common.votes import Match, TrackIdentity, nobody

PAUSES = (1.0, 2.0, 10.0)


def embedding(seed: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(seed).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def looks_until(identity: TrackIdentity, end_s: float, quality: float = 0.5) -> list[float]:
    times = []
    for step in range(int(end_s * 10) + 1):
        at = step / 10
        if identity.due(at, quality=quality):
            identity.asked(at, quality)
            assert identity.answered(embedding(1), quality)
            times.append(at)
    return times


def test_a_track_is_looked_at_at_birth_then_ever_more_rarely() -> None:
    times = looks_until(TrackIdentity(PAUSES, nobody), 40.0)
    assert times[0] == 0.0
    assert len([at for at in times if at <= 5]) <= 3
    later = [b - a for a, b in itertools.pairwise(times) if a > 5]
    assert all(abs(pause - 10) < 0.2 for pause in later)


def test_it_is_pending_until_a_look_and_unknown_when_nobody_matches() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    assert identity.identity.status == "pending"
    identity.asked(0.0, 0.5)
    identity.answered(embedding(1), 0.5)
    assert identity.identity.status == "unknown"


def test_a_match_gives_the_name() -> None:
    identity = TrackIdentity(PAUSES, lambda _: Match(3, "Zoë", 0.31, 0.93))
    identity.asked(0.0, 0.5)
    identity.answered(embedding(1), 0.5)
    found = identity.identity
    assert (found.status, found.person, found.name, found.distance) == ("known", 3, "Zoë", 0.31)


def test_a_lost_answer_is_asked_for_again_at_once() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    identity.asked(0.0, 0.5)
    assert not identity.due(0.1)  # under way
    identity.lost()
    assert identity.due(0.1)


def test_a_clearly_better_crop_and_a_crossing_are_worth_a_look_out_of_turn() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    identity.asked(0.0, 0.4)
    identity.answered(embedding(1), 0.4)
    assert not identity.due(0.6, quality=0.45)
    assert identity.due(0.6, quality=0.8)
    assert identity.due(0.6, quality=0.4, crossed=True)
    assert not identity.due(0.2, quality=0.8, crossed=True)  # but not several times a second


def test_an_embedding_of_another_person_is_refused_and_changes_nothing() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    identity.asked(0.0, 0.5)
    assert identity.answered(embedding(1), 0.5)
    identity.asked(1.0, 0.5)
    assert not identity.answered(embedding(2), 0.5)
    assert identity.answered(embedding(1), 0.5)
