from __future__ import annotations

import numpy as np
import pytest

from common.drawing import GREY, GROUND, INK, Drawn, Rect, annotate, bgr, draw_faces, tab_of, unit_for
from tests.showing import contains, face, five, photo, result


def test_the_picture_that_came_in_is_left_alone() -> None:
    before = photo().copy()
    after = annotate(photo(), five())
    assert np.array_equal(photo(), before)
    assert after.shape == before.shape and not np.array_equal(after, before)


def test_a_box_is_drawn_in_the_colour_of_its_expression_where_the_face_is() -> None:
    for label in ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"):
        drawn = annotate(_plain(), result(640, 360, (face(1, (200, 150, 80, 100), label),)))
        for x, y in ((240, 150), (240, 249), (200, 200), (279, 200)):
            assert tuple(drawn[y, x]) == bgr(label)
        assert (drawn[170:230, 220:260] == 90).all()  # the face itself stays as it was


def test_the_colour_never_stands_without_its_word() -> None:
    one = face(1, (200, 150, 80, 100), "sad", name="张伟")
    drawn = annotate(_plain(), result(640, 360, (one,)))
    assert contains(drawn, tab_of(one, unit_for(640, 360), 640))


def test_what_cannot_be_assessed_is_dashed_grey_and_says_why() -> None:
    one = face(1, (200, 150, 80, 100), reason="turned")
    drawn = annotate(_plain(), result(640, 360, (one,)))
    edge = (drawn[150, 200:280] == GREY).all(axis=1)
    assert edge.any() and not edge.all()
    for label in ("sad", "neutral"):
        assert not (drawn == bgr(label)).all(axis=2).any()
    assert not np.array_equal(tab_of(one, 16, 640), tab_of(face(1, one.box, reason="small"), 16, 640))


def test_a_pending_face_has_a_thin_grey_box_and_no_name() -> None:
    drawn = annotate(_plain(), result(640, 360, (face(1, (200, 150, 80, 100), identity="pending"),)))
    assert (drawn[150, 205:275] == GREY).all()
    assert tab_of(face(1, (0, 0, 9, 9), identity="pending"), 16, 640).shape[1] < 40


def test_only_the_selected_face_has_corner_marks() -> None:
    faces = (face(1, (100, 150, 80, 100), "sad"), face(2, (400, 150, 80, 100), "sad"))
    drawn = annotate(_plain(), result(640, 360, faces), selected=2)
    left, right = drawn[200:300, 80:200], drawn[200:300, 380:500]
    assert (right == INK).all(axis=2).any() and not (left == INK).all(axis=2).any()


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 30), (600, 0, 40, 30), (0, 320, 40, 40), (610, 330, 30, 30), (0, 0, 640, 360)]
)
def test_a_tab_stays_inside_the_picture(box: tuple[int, ...]) -> None:
    one = face(1, box, "surprised", name="Renée Müller")
    drawn = annotate(_plain(), result(640, 360, (one,)))
    assert contains(drawn, tab_of(one, unit_for(640, 360), 640))


def test_a_name_longer_than_the_picture_is_shortened() -> None:
    one = face(1, (10, 40, 30, 30), "surprised", name="x" * 500)
    assert tab_of(one, 12, 200).shape[1] <= 200


def test_tabs_of_neighbours_do_not_cover_each_other() -> None:
    faces = tuple(face(track, (60 + 70 * track, 150, 60, 70), "neutral", name="Somebody") for track in range(5))
    drawn = draw_faces(_plain(), result(640, 360, faces), Rect(0, 0, 640, 360), 12)
    tabs = [one.tab for one in drawn.values()]
    for index, one in enumerate(tabs):
        for other in tabs[index + 1 :]:
            assert not _meet(one, other), (one, other)


def test_a_tab_keeps_its_place_when_faces_move_a_little() -> None:
    area, before, spots = Rect(0, 0, 640, 360), None, set()
    random = np.random.default_rng(3)
    for _ in range(40):
        shake = random.integers(-2, 3, 4)
        faces = (
            face(1, (100 + shake[0], 100, 60, 70), "happy", name="Somebody"),
            face(2, (170 + shake[1], 100 + shake[2], 60, 70), "sad", name="Somebody else"),
        )
        before = draw_faces(_plain(), result(640, 360, faces), area, 12, before=before)
        spots.add(tuple(one.spot for one in before.values()))
    assert len(spots) == 1


def test_a_tab_leaves_its_place_only_for_a_clearly_better_one() -> None:
    area, one = Rect(0, 0, 640, 360), face(1, (300, 150, 60, 70), "happy")
    at_first = draw_faces(_plain(), result(640, 360, (one,)), area, 12)
    assert at_first[1].spot == 0
    elsewhere = {1: Drawn(at_first[1].box, at_first[1].tab, 1)}
    assert draw_faces(_plain(), result(640, 360, (one,)), area, 12, before=elsewhere)[1].spot == 1
    right = draw_faces(_plain(), result(640, 360, (one,)), area, 12, before=elsewhere)[1].tab
    in_the_way = face(2, (right.x, right.y, right.width // 2, right.height), "sad")
    assert draw_faces(_plain(), result(640, 360, (one, in_the_way)), area, 12, before=elsewhere)[1].spot != 1


def test_boxes_follow_when_the_picture_was_scaled() -> None:
    small = annotate(_plain(320, 180), result(640, 360, (face(1, (200, 150, 80, 100), "sad"),)))
    assert tuple(small[100, 100]) == bgr("sad")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (16, 16), (7680, 4320)])
def test_any_size_of_picture_is_drawn_on(width: int, height: int) -> None:
    faces = (face(1, (0, 0, width, height), "happy", name="Renée"), face(2, (0, 0, 1, 1), reason="small"))
    assert annotate(np.zeros((height, width, 3), np.uint8), result(width, height, faces), selected=1).shape == (
        height,
        width,
        3,
    )


def test_text_grows_with_the_picture() -> None:
    assert [unit_for(640, 360), unit_for(854, 480), unit_for(1280, 720), unit_for(3840, 2160)] == [12, 12, 16, 48]


def _plain(width: int = 640, height: int = 360) -> np.ndarray:
    assert GROUND != (90, 90, 90)
    return np.full((height, width, 3), 90, np.uint8)


def _meet(one: Rect, other: Rect) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )
