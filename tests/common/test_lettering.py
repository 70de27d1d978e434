from __future__ import annotations

import numpy as np
import pytest

from common import lettering

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("name", ["Renée", "张伟", "Ελένη", "Łukasz", "さくら", "김민수"])
def test_a_name_in_any_of_the_common_scripts_is_drawn_with_its_own_letters(name: str) -> None:
    drawn = lettering.mask(name, 20)
    for stand_in in ("?", "□"):
        assert not np.array_equal(drawn, lettering.mask(stand_in * len(name), 20))
    assert len({lettering.mask(letter, 20).tobytes() for letter in name}) == len(set(name))


def test_a_letter_that_no_font_has_becomes_a_square_and_never_a_question_mark() -> None:
    unassigned = "\U000e0fff"  # of a private plane: no font has it
    assert not np.array_equal(lettering.mask("\ue000x", 20), lettering.mask("?x", 20))
    assert lettering.mask("a" + unassigned, 20).shape[0] == lettering.line_height(20)


def test_letters_from_right_to_left_stand_in_their_order() -> None:
    # Alef is first, so it stands at the right: OpenCV alone would set it at the left.
    alef, bet = lettering.mask("א", 40), lettering.mask("ב", 40)
    both = lettering.mask("אב", 40)
    right = both[:, -alef.shape[1] :]
    assert _alike(right, alef) > _alike(right, bet)


def test_an_accent_that_comes_apart_from_its_letter_is_the_same_letter() -> None:
    assert np.array_equal(lettering.mask("e\u0301", 20), lettering.mask("é", 20))


def test_what_steers_a_terminal_takes_no_more_than_a_space() -> None:
    assert np.array_equal(lettering.mask("a\nb", 20), lettering.mask("a b", 20))


@pytest.mark.parametrize("size", [12, 16, 24, 48])
def test_text_is_anti_aliased_and_fits_its_line(size: int) -> None:
    drawn = lettering.mask("Åg surprised 71 %", size)
    assert drawn.shape[0] == lettering.line_height(size)
    assert ((drawn > 40) & (drawn < 215)).sum() > 20  # edges between ink and ground
    assert (drawn == 255).any()
    assert not drawn[0].any() and not drawn[-1].any()  # nothing cut off above or below


def test_a_patch_has_the_colours_that_were_asked_for() -> None:
    drawn = lettering.patch("■ happy", 20, (66, 228, 240), (30, 28, 26))
    assert (drawn == (66, 228, 240)).all(axis=2).any()
    assert (drawn[0, 0] == (30, 28, 26)).all()


def test_a_long_text_is_shortened_to_its_room() -> None:
    long = "the name of somebody with a great many names"
    short = lettering.fitted(long, 16, 120)
    assert short.endswith("…") and lettering.width(short, 16) <= 120 and short[:-1] in long
    assert lettering.fitted("short", 16, 120) == "short"
    assert lettering.fitted(long, 16, 0) == ""


@pytest.mark.parametrize(("x", "y"), [(-5, -5), (95, 95), (200, 0), (0, -50)])
def test_a_patch_over_the_edge_is_cut_off(x: int, y: int) -> None:
    canvas = np.zeros((100, 100, 3), np.uint8)
    lettering.paste(canvas, np.full((10, 10, 3), 9, np.uint8), x, y)
    inside = max(0, min(100, x + 10) - max(0, x)) * max(0, min(100, y + 10) - max(0, y))
    assert (canvas == 9).sum() == inside * 3


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    wide = min(one.shape[1], other.shape[1])
    return -float(np.abs(one[:, -wide:].astype(int) - other[:, -wide:].astype(int)).mean())
