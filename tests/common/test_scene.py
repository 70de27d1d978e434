from __future__ import annotations

import time

import numpy as np
import pytest

from common.drawing import GROUND, INK, QUIET, Rect, bgr
from common.lettering import Colour, patch
from common.messages import CameraState
from common.scene import PANEL, WARNING, compose
from common.window import Window
from tests.common.test_window import showing, state
from tests.showing import contains, face, photo, preview, result

SIZE = (1280, 720)


def test_a_live_window_shows_picture_tabs_and_status() -> None:
    shown = compose(showing(), photo(), SIZE, 100.0)
    assert shown.shape == (720, 1280, 3)
    assert says(shown, "happy", INK) and says(shown, "cam0", INK, weight=600) and says(shown, "30/s", QUIET)
    assert shown[:600].std() > 40  # the photo


def test_the_panel_has_seven_bars_with_their_words_and_its_own_percentages() -> None:
    shown = compose(showing(selected=1), photo(), SIZE, 100.0)
    for word in ("angry", "disgusted", "fearful", "sad", "surprised", "neutral"):
        assert says(shown, word, QUIET, PANEL), word
    assert says(shown, "happy", INK, PANEL, weight=600) and says(shown, "70 %", INK, PANEL, weight=600)
    assert says(shown, "Renée Müller", INK, PANEL, weight=600)


def test_without_a_selection_there_is_no_panel() -> None:
    window = showing()
    compose(window, photo(), SIZE, 100.0)
    assert window.panel is None


def test_the_panel_never_covers_its_own_face() -> None:
    for box in ((0, 0, 200, 250), (780, 0, 200, 250), (0, 400, 200, 250), (780, 400, 200, 250)):
        window = showing()
        window.take(preview(result(1000, 667, (face(1, box, "sad", name="Renée"),))), 100.0)
        window.select(1, 100.0)
        compose(window, photo(), SIZE, 100.0)
        assert window.panel is not None
        for part in (window.drawn[1].box, window.drawn[1].tab):
            assert not _meet(window.panel, part)


def test_a_face_that_cannot_be_assessed_has_its_reason_in_the_panel_and_no_bars() -> None:
    shown = compose(showing(selected=4), photo(), SIZE, 100.0)
    assert says(shown, "cannot assess: turned away", INK, PANEL)
    assert not says(shown, "neutral", QUIET, PANEL)


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (3840, 2160)])
def test_a_picture_that_is_not_live_has_no_colours_no_boxes_and_says_why(size: tuple[int, int]) -> None:
    window = showing(selected=1)
    live = compose(window, photo(), size, 100.0)
    window.state(state("offline", since=time.time() - 12, reason="the webcam was unplugged"), 100.0)
    stale = compose(window, photo(), size, 100.0)
    height = stale.shape[0] * 9 // 10
    assert stale[:height].mean() < live[:height].mean() * 0.5
    spread = stale[:height].max(axis=2).astype(int) - stale[:height].min(axis=2)
    assert spread.max() < 12  # grey
    assert not (stale == bgr("happy")).all(axis=2).any() and window.drawn == {}
    unit = max(12, round(min(size[1] / 45, size[0] / 60)))
    assert contains(stale, patch("offline for 0:12", round(unit * 1.6), INK, GROUND, 600))
    assert contains(stale, patch("the webcam was unplugged", unit, QUIET, GROUND))


def test_a_window_that_waits_is_dark_and_says_so() -> None:
    shown = compose(Window(("cam0",), 100.0), None, SIZE, 101.0)
    assert (shown[0, 0] == GROUND).all() and shown.mean() < 60
    assert contains(shown, patch("waiting for pictures…", 26, INK, GROUND, 600))
    assert says(shown, "waiting for pictures…", WARNING)


def test_the_help_tells_every_key() -> None:
    window = showing()
    window.press(ord("h"), 100.0)
    shown = compose(window, photo(), SIZE, 100.0)
    for text in ("quit", "snapshot", "webcam", "screen", "next camera", "deselect"):
        assert says(shown, text, QUIET, PANEL), text


def test_a_notice_is_shown_whole_if_it_fits() -> None:
    window = showing()
    window.notice("saved cam0-1.jpg", 100.0)
    assert says(compose(window, photo(), SIZE, 100.0), "saved cam0-1.jpg", INK)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (60, 40), (200, 150), (300, 900)])
def test_every_size_of_window_can_be_drawn(size: tuple[int, int]) -> None:
    window = showing(selected=1)
    window.press(ord("h"), 100.0)
    window.notice("saved", 100.0)
    assert compose(window, photo(), size, 100.0).shape == (size[1], size[0], 3)
    window.state(state("offline", since=time.time()), 100.0)
    compose(window, np.zeros((1, 1, 3), np.uint8), size, 100.0)
    compose(window, np.zeros((4320, 7680, 3), np.uint8), size, 100.0)


def test_a_reason_with_anything_in_it_can_be_shown() -> None:
    window = showing()
    bad = CameraState(sender="x", camera="cam0", state="offline", since=1.0, reason="\x1b[31m" + "long " * 200)
    window.state(bad, 100.0)
    compose(window, photo(), (320, 200), 100.0)


def says(
    scene: np.ndarray, text: str, colour: Colour, ground: Colour = GROUND, *, size: int = 16, weight: int = 400
) -> bool:
    return contains(scene, patch(text, size, colour, ground, weight))


def _meet(one: Rect, other: Rect) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )
