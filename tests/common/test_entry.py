"""A name is typed in the window: letters of all alphabets, capitals, corrections, and what cannot be a name."""

from __future__ import annotations

import pytest

from common.entry import BACKSPACE, ENTER, ESC, NameEntry, character

SHIFT = 0xFFE1


@pytest.mark.parametrize(
    ("key", "letter"),
    [
        (0x61, "a"), (0x20, " "), (0x27, "'"), (0xE9, "é"), (-55, "É"), (0x1BE, "ž"), (0x6D6, "ж"), (0x7E1, "α"),
        (0x100674E, "李"), (0x10005D0, "א"), (SHIFT, ""), (0xFF51, ""), (9, ""), (0x7F, ""), (0x100202E, ""),
        (0x1000000 + 0x110000, ""), (-300, ""),
    ],
)  # fmt: skip
def test_keys_are_characters_of_any_script(key: int, letter: str) -> None:
    assert character(key) == letter


def typed(*keys: int | str) -> NameEntry:
    entry = NameEntry(7)
    for key in keys:
        for code in [key] if isinstance(key, int) else [ord(letter) for letter in key]:
            assert entry.press(code) is None
    return entry


def test_shift_makes_the_next_letter_a_capital_and_backspace_takes_one_away() -> None:
    entry = typed(SHIFT, "ada ", SHIFT, "lovelacx", BACKSPACE, "e ")
    assert entry.press(ENTER) == "done"
    assert entry.text == "Ada Lovelace"


def test_a_letter_whose_case_was_lost_is_small_without_shift() -> None:
    assert typed("ren", -55, "e").text == "renée"
    assert typed(SHIFT, -55, "va").text == "Éva"


def test_an_empty_name_is_not_taken_and_esc_ends_it() -> None:
    entry = typed(" ")
    assert entry.press(ENTER) is None and "empty" in entry.problem
    assert entry.press(ord("a")) is None and entry.problem == ""
    assert entry.press(ESC) == "cancelled"


def test_a_name_ends_at_its_longest() -> None:
    assert len(typed("x" * 300).text) == 100
