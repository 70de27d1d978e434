"""The first look: a window that shows its picture is left alone, one that does not is opened anew, not for ever."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from common.first_look import EVERY_S, MOST_OPENED, PATIENCE_S, FirstLook, same, screen_grabber
from tests.showing import Screen

BRIGHT = np.full((60, 100, 3), 90, np.uint8)
BLACK = np.zeros((60, 100, 3), np.uint8)  # what the screen shows


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Iterator[FirstLook]:
    screen = Screen(200, 100)
    monkeypatch.setenv("DISPLAY", screen.display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    made = FirstLook(screen_grabber(), 0.0)
    yield made
    made.close()
    screen.close()


def test_what_is_on_the_screen_is_left_alone(look: FirstLook) -> None:
    assert not look.blank(BLACK, 0, 0, 0.0) and look.done


def test_what_is_not_on_the_screen_for_long_is_opened_anew_a_few_times(look: FirstLook) -> None:
    opened, now = 1, 0.0
    while not look.done:
        opened += look.blank(BRIGHT, 0, 0, now)
        now += EVERY_S
        assert now <= (PATIENCE_S + 2 * EVERY_S) * opened
    assert opened == MOST_OPENED
    assert not look.blank(BRIGHT, 0, 0, now + PATIENCE_S)


def test_where_something_else_is_to_be_seen_it_is_left_alone(look: FirstLook, monkeypatch: pytest.MonkeyPatch) -> None:
    wood = np.random.default_rng(0).integers(0, 255, (60, 100, 4), dtype=np.uint8)
    monkeypatch.setattr(look._grabber, "grab", lambda area: wood)
    assert not look.blank(BRIGHT, 0, 0, 0.0) and not look.done
    assert not look.blank(BRIGHT, 0, 0, PATIENCE_S) and look.done


def test_a_window_partly_off_the_screen_is_not_judged(look: FirstLook) -> None:
    assert not look.blank(BRIGHT, 150, 80, 10.0) and look.done


@pytest.mark.parametrize(
    "differs",
    [{"DISPLAY": ""}, {"DISPLAY": ":9999"}, {"WAYLAND_DISPLAY": "wayland-0"}, {"QT_SCALE_FACTOR": "2"}],
    ids=lambda differs: "=".join(*differs.items()),
)
def test_where_there_is_no_x_screen_to_compare_with_nothing_is_looked_at(
    look: FirstLook, monkeypatch: pytest.MonkeyPatch, differs: dict[str, str]
) -> None:
    for name, value in differs.items():
        monkeypatch.setenv(name, value)
    look = FirstLook(screen_grabber(), 0.0)
    assert look.done and not look.blank(BRIGHT, 0, 0, 10.0)


def test_something_small_in_front_does_not_matter() -> None:
    covered = BRIGHT.copy()
    covered[:20, :40] = 0
    assert same(covered, BRIGHT) and not same(BLACK, BRIGHT) and not same(BLACK[:50], BLACK)
