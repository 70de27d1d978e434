from __future__ import annotations

import pytest

from common import words
from tests.showing import face

BOX = (0.0, 0.0, 10.0, 10.0)


def test_a_face_is_told_by_name_and_expression() -> None:
    assert words.tells(face(1, BOX, "sad", name="张伟")) == "张伟, sad"
    assert words.tells(face(1, BOX, "sad")) == "unknown, sad"
    assert words.tells(face(1, BOX, reason="turned")) == "unknown, turned away"
    assert words.tells(face(1, BOX, identity="pending")) == "…"


def test_a_reason_nobody_knows_yet_is_told_as_it_is_and_never_as_an_expression() -> None:
    assert words.why("hand_over_mouth") == "hand over mouth"
    assert words.why(None) == "cannot assess"


@pytest.mark.parametrize(
    ("seconds", "told"), [(-3, "0:00"), (0, "0:00"), (12.9, "0:12"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00")]
)
def test_a_duration_is_told_like_a_clock(seconds: float, told: str) -> None:
    assert words.clock(seconds) == told


def test_counts_are_told_in_words() -> None:
    assert [words.counted(number, "face") for number in (0, 1, 2)] == ["no faces", "1 face", "2 faces"]


def test_a_name_cannot_steer_the_terminal() -> None:
    assert words.one_line("Bob\x1b[31m\nEve\t") == "Bob [31m Eve"
