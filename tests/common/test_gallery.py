"""Who an embedding is nearest to: the exact answer, judged by how far other people are."""

from __future__ import annotations

import numpy as np
import pytest

from common.calibration import CalibrationError, calibrate
from common.gallery import Gallery, Member, Thresholds
from tests.people import face_of


def members(count: int, looks: int = 2, *, first: int = 1) -> list[Member]:
    return [
        Member(person=p, name=f"p{p}", embeddings=np.stack([face_of(p, look) for look in range(looks)]))
        for p in range(first, first + count)
    ]


def test_an_empty_gallery_knows_nobody() -> None:
    assert Gallery().recognise(face_of(1)).best is None


@pytest.mark.parametrize("enrolled", [1, 3, 20])
def test_another_look_at_somebody_names_them_and_strangers_get_no_name(enrolled: int) -> None:
    gallery = Gallery(members(enrolled))
    for person in range(1, enrolled + 1):
        verdict = gallery.recognise(face_of(person, 9))
        assert verdict.best is not None and verdict.best.person == person
        assert verdict.best.score > 0 and verdict.clear and verdict.best.confidence > 0.5
    for stranger in range(500, 520):
        best = gallery.recognise(face_of(stranger, 9)).best
        assert best is not None and best.score < 0 and best.confidence < 0.5


def test_faces_that_all_lie_closer_together_are_judged_more_strictly() -> None:
    """The same distance is near in one kind of pictures and far in another."""

    def shrunk(person: int, look: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        middle = face_of(0, 0, 0.0)
        return (middle + 0.6 * (face_of(person, look) - middle)).astype(np.float32)

    tight = Gallery([Member(person=p, name=str(p), embeddings=shrunk(p, 0)[None]) for p in range(1, 21)])
    wide = Gallery(members(20, 1))
    query = (face_of(1, 0) + 0.47 * np.eye(128, dtype=np.float32)[5]).astype(np.float32)
    near = (shrunk(1, 0) + 0.47 * np.eye(128, dtype=np.float32)[5]).astype(np.float32)
    in_wide, in_tight = wide.recognise(query).of(1), tight.recognise(near).of(1)
    assert in_wide is not None and in_tight is not None
    assert in_wide.distance == pytest.approx(in_tight.distance, abs=1e-5)
    assert in_wide.score > 0 > in_tight.score


def test_between_two_who_are_alike_it_is_not_clear() -> None:
    twin = face_of(1, 0) + np.float32(0.05) * np.eye(128, dtype=np.float32)[0]
    gallery = Gallery([*members(1, 1), Member(person=2, name="twin", embeddings=twin[None].astype(np.float32))])
    assert not gallery.recognise(face_of(1, 9)).clear


def test_people_can_be_left_out() -> None:
    verdict = Gallery(members(5)).recognise(face_of(3, 9), without=[3])
    assert verdict.best is not None and verdict.best.person != 3


@pytest.mark.parametrize("references", [3, 64, 65, 5000])
def test_the_quick_way_finds_what_the_plain_way_finds(references: int) -> None:
    rng = np.random.default_rng(references)
    everything = (rng.normal(size=(references, 128)) * np.exp(-np.arange(128) / 40) * 0.15 + 0.1).astype(np.float32)
    gallery = Gallery([Member(person=i, name=str(i), embeddings=row[None]) for i, row in enumerate(everything)])
    for _ in range(50):
        query = (everything[rng.integers(references)] + rng.normal(size=128) * rng.choice([0.001, 0.05])).astype(
            np.float32
        )
        apart = np.linalg.norm(everything - query, axis=1)
        row, distance = gallery.nearest_reference(query)
        assert distance == pytest.approx(float(apart.min()), abs=1e-4) and apart[row] <= apart.min() + 1e-4
        best = gallery.recognise(query).best
        if apart.min() < 0.5:
            assert best is not None and best.person == int(apart.argmin())


def test_an_index_decides_as_the_exact_way_does(caplog: pytest.LogCaptureFixture) -> None:
    many = members(4000)
    exact, indexed = Gallery(many), Gallery(many, index_above=5000)
    assert indexed._index is not None and "mien[index]" not in caplog.text
    same = known = 0
    queries = [face_of(person, 9) for person in (*range(1, 4001, 20), *range(9000, 9100))]
    for query in queries:
        plain, quick = exact.recognise(query), indexed.recognise(query)
        assert quick.best is not None and plain.best is not None
        named = plain.best.score >= 0 and plain.clear
        assert (quick.best.score >= 0 and quick.clear) == named
        known += named
        if named:  # what is proposed is judged exactly: the same person, at the same distance
            assert (quick.best.person, quick.best.distance) == (plain.best.person, plain.best.distance)
            same += exact.nearest_reference(query)[0] == indexed.nearest_reference(query)[0]
    assert known >= 180 and same >= 0.99 * known


def test_without_the_library_the_exact_way_is_taken_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.gallery.available", lambda: False)
    gallery = Gallery(members(20), index_above=30)
    assert gallery.recognise(face_of(3, 9)).best.person == 3  # type: ignore[union-attr]
    assert "mien[index]" in caplog.text


def test_references_that_are_no_numbers_are_refused() -> None:
    broken = face_of(1)[None].copy()
    broken[0, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        Gallery([Member(person=1, name="x", embeddings=broken)])


def test_a_calibration_names_hardly_a_stranger_and_nearly_everybody() -> None:
    people = [np.stack([face_of(p, look) for look in range(6)]) for p in range(1, 25)]
    found = calibrate(people)
    assert found.strangers <= 0.01 and found.mistaken == 0 and found.known > 0.98
    assert found == calibrate(people)  # the same every time
    judged = Gallery(members(20, 3, first=100), found.thresholds)
    assert all(judged.recognise(face_of(p, 9)).best.score >= 0 for p in range(100, 120))  # type: ignore[union-attr]


def test_a_calibration_follows_the_pictures() -> None:
    """Where looks of one person differ more, more difference is allowed."""
    loose = [np.stack([face_of(p, look, 0.42) for look in range(6)]) for p in range(1, 25)]
    tight = [np.stack([face_of(p, look, 0.1) for look in range(6)]) for p in range(1, 25)]
    assert calibrate(loose).nearer < calibrate(tight).nearer - 0.05


@pytest.mark.parametrize("each", [2, 3, 4])
def test_a_calibration_with_few_pictures_a_person_still_tries_those_who_come_back(each: int) -> None:
    people = [np.stack([face_of(p, look) for look in range(each)]) for p in range(1, 25)]
    found = calibrate(people)
    assert found.known > 0.9 and found.nearer > 0.2


def test_one_picture_a_person_is_too_few() -> None:
    with pytest.raises(CalibrationError, match="two pictures"):
        calibrate([face_of(p)[None] for p in range(1, 41)])


def test_too_few_people_are_said_to_be_too_few() -> None:
    with pytest.raises(CalibrationError, match="at least 8 people"):
        calibrate([np.stack([face_of(p, look) for look in range(5)]) for p in range(3)])


def test_the_shipped_thresholds_are_what_the_documents_say() -> None:
    assert Thresholds() == Thresholds(nearer=0.235, lead=0.92, crowd=0.83)
