"""When identity looks, and what the looks say together."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.gallery import Candidate, Verdict
from common.votes import SOLID, TrackIdentity, nobody
from models import quality as qualities
from models.chips import Aligner, cut_patch
from models.detector import FaceDetector
from models.embedder import FaceEmbedder
from tests.models.faces import photo

PAUSES = (1.0, 2.0, 10.0)
Floats = NDArray[np.float32]


def embedding(seed: int) -> Floats:
    vector = np.random.default_rng(seed).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def candidate(person: int, score: float, *, withheld: bool = False) -> Candidate:
    return Candidate(person=person, name=f"person {person}", withheld=withheld, distance=0.5 * (1 - score), score=score)


def saying(*verdicts: Verdict) -> Callable[[Floats], Verdict]:
    """A gallery that answers so, one look after the other; the last answer repeats."""
    left = list(verdicts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def verdict(*candidates: Candidate, clear: bool = True) -> Verdict:
    return Verdict(candidates=candidates, clear=clear)


ZOE, YAN = candidate(3, 0.4), candidate(4, 0.4)
NEAR = candidate(3, -0.03)
FAR = candidate(3, -0.3)


def look(identity: TrackIdentity, at_s: float, quality: float = 0.5) -> None:
    identity.asked(at_s, quality)
    assert identity.answered(embedding(1), quality)


def looks_until(
    identity: TrackIdentity, end_s: float, quality: Callable[[float], float] = lambda _: 0.5
) -> list[float]:
    times = []
    for step in range(int(end_s * 10) + 1):
        at = step / 10
        if identity.due(at, quality=quality(at)):
            look(identity, at, quality(at))
            times.append(at)
    return times


def test_a_track_is_looked_at_at_birth_then_ever_more_rarely() -> None:
    times = looks_until(TrackIdentity(PAUSES, nobody), 40.0)
    assert times[0] == 0.0
    assert len([at for at in times if at <= 5]) <= 3
    later = [b - a for a, b in itertools.pairwise(times) if a > 5]
    assert all(abs(pause - 10) < 0.2 for pause in later)


def test_crops_that_get_better_all_the_time_do_not_cost_more_looks_than_that() -> None:
    times = looks_until(TrackIdentity(PAUSES, nobody), 30.0, lambda at: min(1.0, 0.05 * 1.2 ** (at * 4)))
    assert len([at for at in times if at <= 5]) <= 3
    assert all(b - a >= 9.9 for a, b in itertools.pairwise([at for at in times if at > 2]) if a > 5)


def test_it_is_pending_until_a_look_and_unknown_when_nobody_matches() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    assert identity.identity.status == "pending"
    look(identity, 0.0)
    assert identity.identity.status == "unknown"


def test_a_match_gives_the_name() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    look(identity, 0.0)
    found = identity.identity
    assert (found.status, found.person, found.name, found.distance) == ("known", 3, "person 3", 0.3)
    assert found.confidence is not None and found.confidence > 0.9


def test_a_poor_crop_alone_names_nobody_but_two_that_agree_do() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    look(identity, 0.0, quality=0.1)
    assert identity.identity.status == "pending"
    look(identity, 1.0, quality=0.1)
    assert identity.identity.person == 3


def test_two_people_alike_near_are_neither_named_nor_unknown() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE, YAN, clear=False)))
    for at in range(6):
        look(identity, float(at))
    assert identity.identity.status == "pending"


def test_somebody_near_an_enrolled_person_is_called_unknown_only_after_some_looks() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(NEAR)))
    said = []
    for at in range(3):
        look(identity, float(at))
        said.append(identity.identity.status)
    assert said == ["pending", "pending", "unknown"]


def test_a_name_does_not_flicker() -> None:
    answers = [verdict(ZOE), verdict(NEAR), verdict(YAN), verdict(ZOE), verdict(FAR), verdict(ZOE)]
    identity = TrackIdentity(PAUSES, saying(*answers))
    for at in range(len(answers)):
        look(identity, float(at))
        assert identity.identity.person == 3, at


def test_a_mind_is_changed_when_two_looks_in_a_row_say_so() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE), verdict(YAN), verdict(YAN)))
    said = []
    for at in range(3):
        look(identity, float(at))
        said.append(identity.identity.person)
    assert said == [3, 3, 4]


def test_a_name_that_no_look_supports_any_more_is_taken_back() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE), verdict(FAR)))
    for at in range(3):
        look(identity, float(at))
    assert identity.identity.status == "unknown"


def test_an_unknown_face_gets_its_name_when_a_better_crop_says_it() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(FAR), verdict(ZOE)))
    look(identity, 0.0)
    assert identity.identity.status == "unknown"
    look(identity, 1.0)
    assert identity.identity.person == 3


def towards(other: Floats, share: float) -> Floats:
    """A face between that of ``look`` and another one."""
    mixed = (1 - share) * embedding(1) + share * other
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


@pytest.mark.parametrize("share", [0.44, 0.5])
def test_somebody_who_has_taken_anothers_place_is_not_called_by_their_name_for_long(share: float) -> None:
    """They are too much alike for one look to be sure."""
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    for at in (0.0, 1.0, 3.0):
        look(identity, at)
    other = towards(embedding(2), share)
    assert 0.6 < np.linalg.norm(other - embedding(1)) < 0.75
    identity.asked(13.0, 0.5)
    assert identity.answered(other, 0.5)
    assert identity.due(13.5)  # and not ten seconds later
    identity.asked(13.5, 0.5)
    assert not identity.answered(other, 0.5)


def test_two_looks_that_clearly_name_another_are_another_though_much_alike() -> None:
    other = towards(embedding(2), 0.38)

    def gallery(seen: Floats) -> Verdict:
        return verdict(YAN, FAR) if np.linalg.norm(seen - other) < 0.01 else verdict(ZOE)

    identity = TrackIdentity(PAUSES, gallery)
    look(identity, 0.0)
    for at, is_the_same in ((10.0, True), (10.5, False)):
        assert identity.due(at)
        identity.asked(at, 0.5)
        assert identity.answered(other, 0.5) == is_the_same
        assert identity.identity.person == 3


def test_one_look_that_does_not_fit_is_forgotten_when_the_next_one_does() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    look(identity, 0.0)
    before = identity.summary()
    for at, seen in ((1.0, towards(embedding(2), 0.44)), (1.5, embedding(1)), (4.0, towards(embedding(2), 0.44))):
        identity.asked(at, 0.5)
        assert identity.answered(seen, 0.5)
    after = identity.summary()
    assert before is not None and after is not None
    np.testing.assert_allclose(after.embedding, before.embedding, atol=1e-6)


def test_a_poor_crop_does_not_cast_doubt() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    look(identity, 0.0)
    for at in (1.0, 3.0, 13.0):
        identity.asked(at, 0.1)
        assert identity.answered(towards(embedding(2), 0.44), 0.1)
    assert not identity.due(14.0)


def test_sharp_looks_after_one_out_of_focus_are_of_the_same_person() -> None:
    sharp = photo("obama.jpg")
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 14), np.uint8)
    detector, aligner, embedder = FaceDetector(input_long_side=512), Aligner(), FaceEmbedder()
    looks = []
    for picture in (blurred, sharp):
        found = detector.detect(picture)
        chip = aligner.chip(cut_patch(picture, found.boxes[0]))
        good = qualities.score(qualities.assess(picture, found.boxes[0], found.landmarks[0]))
        looks.append((embedder.embed(chip[None])[0], good))
    assert looks[0][1] < SOLID < looks[1][1]
    identity = TrackIdentity(PAUSES, nobody)
    for at, (seen, good) in enumerate([looks[0], looks[1], looks[1], looks[1]]):
        identity.asked(float(at), good)
        assert identity.answered(seen, good), at


def test_a_good_look_does_not_make_the_poor_ones_before_it_certain() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    look(identity, 0.0, quality=0.1)
    better = towards(embedding(2), 0.44)
    for at in (1.0, 2.0, 3.0):
        identity.asked(at, 0.9)
        assert identity.answered(better, 0.9)
    summary = identity.summary()
    assert summary is not None and summary.looks == 4
    assert np.linalg.norm(summary.embedding - better) < 0.1


def test_a_look_that_was_lost_vouches_for_nothing() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    identity.asked(0.0, 0.6)
    identity.lost()
    look(identity, 0.1, quality=0.06)
    assert identity.identity.status == "pending"
    assert identity.due(0.7, quality=0.3)  # much better than the best that has been looked at


def test_a_look_that_was_doubted_is_not_among_those_there_were() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE)))
    look(identity, 0.0, quality=0.4)
    identity.asked(1.0, 0.9)
    assert identity.answered(towards(embedding(2), 0.44), 0.9)
    summary = identity.summary()
    assert summary is not None and (summary.quality, summary.looks) == (0.4, 1)


def test_of_people_without_consent_nothing_is_said() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(candidate(3, 0.4, withheld=True))))
    look(identity, 0.0)
    assert identity.withheld
    said = identity.identity
    assert (said.status, said.person, said.name, said.distance, said.confidence) == ("unknown", None, None, None, None)


def test_another_gallery_is_judged_by_the_looks_there_were() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(FAR), verdict(ZOE)))
    look(identity, 0.0)
    assert not identity.reconsider()
    assert identity.identity.person == 3


def test_an_unknown_face_is_not_in_doubt_again_because_somebody_was_enrolled() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(FAR), verdict(NEAR)))
    look(identity, 0.0)
    identity.reconsider()
    assert identity.identity.status == "unknown"


@pytest.mark.parametrize("after", [verdict(NEAR), verdict(ZOE, YAN, clear=False)], ids=["less near", "not clear"])
def test_a_name_is_not_lost_because_somebody_else_was_enrolled_or_renamed(after: Verdict) -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE), after))
    look(identity, 0.0)
    identity.reconsider()
    assert identity.identity.person == 3


@pytest.mark.parametrize("quality", [0.1, 0.9])
def test_a_name_of_poor_crops_stays_when_the_gallery_changes_and_consent_counts_at_once(quality: float) -> None:
    refused = candidate(3, 0.4, withheld=True)
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE), verdict(ZOE), verdict(ZOE), verdict(refused)))
    for at in range(2):
        look(identity, float(at), quality)
    identity.reconsider()
    assert identity.identity.person == 3
    identity.reconsider()
    assert identity.withheld and identity.identity.person is None


def test_a_track_forgets_its_looks_with_the_person() -> None:
    identity = TrackIdentity(PAUSES, saying(verdict(ZOE), Verdict()))
    look(identity, 0.0)
    assert identity.reconsider(frozenset({3}))
    assert identity.summary() is None
    assert identity.identity.status == "pending"
    assert identity.due(0.1)  # and looks again, at whoever it is


def test_a_lost_answer_is_asked_for_again_at_once() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    identity.asked(0.0, 0.5)
    assert not identity.due(0.1)  # under way
    identity.lost()
    assert identity.due(0.1)


def test_a_clearly_better_crop_and_a_crossing_are_worth_a_look_out_of_turn() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    look(identity, 0.0, quality=0.4)
    assert not identity.due(0.6, quality=0.45)
    assert identity.due(0.6, quality=0.8)
    assert identity.due(0.6, quality=0.4, crossed=True)
    assert not identity.due(0.2, quality=0.8, crossed=True)  # but not several times a second


def test_an_embedding_of_another_person_is_refused_and_changes_nothing() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    look(identity, 0.0)
    identity.asked(1.0, 0.5)
    assert not identity.answered(embedding(2), 0.5)
    assert identity.answered(embedding(1), 0.5)


def test_good_crops_count_more() -> None:
    identity = TrackIdentity(PAUSES, nobody)
    near = (embedding(1) + 0.3 * embedding(2)).astype(np.float32)
    identity.answered(embedding(1), 0.9)
    identity.answered(near, 0.1)
    summary = identity.summary()
    assert summary is not None
    assert np.linalg.norm(summary.embedding - embedding(1)) < 0.2 * np.linalg.norm(summary.embedding - near)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 3), st.floats(-0.5, 0.9)), max_size=3, unique_by=lambda one: one[0]),
            st.booleans(),
            st.floats(0, 1),
        ),
        max_size=30,
    )
)
def test_whatever_the_gallery_says_nobody_is_named_without_being_near(looks: list[Any]) -> None:
    said: list[Verdict] = []
    identity = TrackIdentity((1.0,), lambda embedding: said[-1])
    before: int | None = None
    for people, clear, quality in looks:
        ranked = sorted(people, key=lambda one: -one[1])
        said.append(
            Verdict(
                clear=clear,
                candidates=tuple(
                    Candidate(person=p, name=f"P{p}", withheld=p == 3, distance=0.5, score=score) for p, score in ranked
                ),
            )
        )
        assert identity.answered(np.zeros(128, np.float32), quality)
        now = identity.identity
        assert now.person != 3 and now.name != "P3"  # of whom nothing may be said
        assert (now.status == "known") == (now.person is not None) == (now.name is not None)
        if now.person is not None and now.person != before:  # a new name is the nearest's, near and clear of the rest
            assert clear and (now.person, True) == (ranked[0][0], ranked[0][1] >= 0)
        before = now.person
