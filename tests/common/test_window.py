from __future__ import annotations

import time

import pytest

from common.drawing import Drawn, Rect
from common.messages import CameraState, Enrolling
from common.window import GONE_S, NOTICE_S, STALE_S, Window, layout
from tests.showing import face, five, preview, result

ESC, TAB = 27, 9


def showing(*, selected: int | None = None, now: float = 100.0) -> Window:
    """Return a window that has seen five people at 30 pictures a second, up to ``now``."""
    window = Window(("cam0", "cam1"), now - 3)
    for step in range(60, -1, -1):
        window.arrived(now - step / 30)
    window.take(preview(five()), now)
    for one in five().faces:
        x, y, width, height = (round(value) for value in one.box)
        window.drawn[one.track] = Drawn(Rect(x, y, width, height), Rect(x, y - 30, 120, 24), 0)
    if selected is not None:
        window.select(selected, now)
    return window


def state(word: str, *, since: float, reason: str | None = None, camera: str = "cam0") -> CameraState:
    return CameraState.model_validate(
        {"from": "capture.test.1", "camera": camera, "state": word, "since": since, "reason": reason}
    )


# --- the status line and what is not live ---


def test_the_status_line_tells_camera_rate_latency_and_faces() -> None:
    assert showing().status(100.0) == ["cam0", "30/s", "42 ms", "5 faces"]
    assert showing().trouble(100.0) is None


def test_before_the_first_picture_it_waits_and_later_says_what_to_do() -> None:
    window = Window(("cam0",), 100.0)
    assert window.status(101.0) == ["cam0", "waiting for pictures…"]
    assert "launch.py status" in window.status(120.0)[1]


def test_a_picture_that_is_too_old_is_stalled() -> None:
    window = showing()
    assert window.trouble(100.0 + STALE_S - 0.1) is None
    trouble = window.trouble(103.2)
    assert trouble is not None and trouble.headline == "picture stalled 3 s"


def test_a_paused_camera_is_called_paused_and_not_stalled() -> None:
    window = showing()
    paused = state("online", since=90.0).model_copy(update={"paused": True})
    window.state(paused, 101.0)
    trouble = window.trouble(130.0)
    assert trouble is not None and trouble.headline == "paused"


def test_a_slow_camera_is_not_called_stalled_between_its_pictures() -> None:
    window = Window(("cam0",), 0.0)
    for moment in (10.0, 12.0, 14.0, 16.0):
        window.arrived(moment)
        window.take(preview(five()), moment)
    assert window.trouble(17.5) is None
    assert window.trouble(23.0) is not None


def test_an_offline_camera_is_told_with_how_long_and_why() -> None:
    window = showing()
    window.state(state("offline", since=time.time() - 12, reason="the webcam was unplugged"), 100.0)
    assert window.status(100.0) == ["cam0", "offline for 0:12 – the webcam was unplugged"]
    # It is said again every second: that does not begin anew.
    window.state(state("offline", since=time.time() - 12, reason="the webcam was unplugged"), 101.0)
    assert window.status(161.0)[1].startswith("offline for 1:1")


def test_another_camera_being_offline_says_nothing_of_this_one() -> None:
    window = showing()
    window.state(state("offline", since=time.time(), camera="cam1"), 100.0)
    assert window.trouble(100.0) is None


def test_a_stalled_and_an_ended_source_are_no_live_picture() -> None:
    for word, told in (("stalled", "picture stalled 4 s"), ("ended", "the source has ended")):
        window = showing()
        window.state(state(word, since=time.time() - 4), 100.0)
        trouble = window.trouble(100.1)
        assert trouble is not None and trouble.headline == told


def test_a_camera_that_came_back_is_live_again() -> None:
    window = showing()
    window.state(state("offline", since=time.time()), 100.0)
    window.state(state("online", since=time.time()), 100.1)
    assert window.trouble(100.1) is None


def test_a_picture_without_an_analysis_says_so() -> None:
    window = showing()
    window.take(preview(result(640, 360, analysed=False)), 100.0)
    assert "not analysed" in window.status(100.0)[-1]


# --- selecting ---


def test_a_click_on_a_face_selects_it_and_a_click_beside_deselects() -> None:
    window = showing()
    window.click(740, 350, 100.0)
    assert window.selected == 1
    window.click(20, 600, 100.0)
    assert window.selected is None


def test_a_click_on_a_tab_selects_its_face() -> None:
    window = showing()
    window.click(330, 215, 100.0)
    assert window.selected == 2


def test_of_two_faces_under_a_click_the_smaller_one_is_meant() -> None:
    window = showing()
    window.drawn = {
        1: Drawn(Rect(0, 0, 300, 300), Rect(0, 0, 0, 0), 0),
        2: Drawn(Rect(50, 50, 40, 40), Rect(0, 0, 0, 0), 0),
    }
    window.click(60, 60, 100.0)
    assert window.selected == 2


def test_a_click_on_the_panel_changes_nothing() -> None:
    window = showing(selected=1)
    window.panel = Rect(0, 500, 200, 160)
    window.click(100, 550, 100.0)
    assert window.selected == 1


def test_the_selection_stays_with_its_track_wherever_the_face_goes() -> None:
    window = showing(selected=2)
    moved = face(2, (10, 10, 50, 50), "happy")
    window.take(preview(result(1000, 667, (face(9, (316, 237, 96, 121), "sad"), moved))), 100.1)
    assert window.face() == (moved, True)


def test_a_selected_face_that_left_is_told_as_gone_and_then_let_go() -> None:
    window = showing(selected=2)
    for moment in (103.0, 100.0 + GONE_S - 1):
        window.take(preview(result(1000, 667)), moment)
        found = window.face()
        assert found is not None and not found[1]
    assert window.seen(103.0) == "out of sight 0:03"
    window.take(preview(result(1000, 667)), 100.1 + GONE_S)
    assert window.selected is None and window.face() is None


def test_how_long_a_face_was_seen_is_told() -> None:
    window = showing(selected=2)
    window.take(preview(five()), 142.0)
    assert window.seen(142.0) == "seen 0:42"


# --- keys ---


@pytest.mark.parametrize(
    ("key", "action"),
    [
        ("q", "quit"),
        ("Q", "quit"),
        ("s", "snapshot"),
        ("w", "webcam"),
        ("c", "screen"),
        ("o", "source"),
        ("f", "fullscreen"),
    ],
)
def test_keys_mean_actions(key: str, action: str) -> None:
    assert showing().press(ord(key), 100.0) == action


def test_keys_without_a_meaning_do_nothing() -> None:
    window = showing(selected=1)
    assert [window.press(key, 100.0) for key in (ord("x"), 0, 255, ord(" "), 13)] == [None] * 5
    assert window.selected == 1 and not window.help


def test_tab_goes_round_the_cameras_and_leaves_nothing_of_the_last_one() -> None:
    window = showing(selected=1)
    assert window.press(TAB, 100.0) == "camera"
    assert (window.shown, window.selected, window.result, window.drawn) == ("cam1", None, None, {})
    assert window.status(100.5) == ["cam1", "waiting for pictures…"]
    assert window.press(TAB, 101.0) == "camera" and window.shown == "cam0"


def test_tab_with_one_camera_says_so() -> None:
    window = Window(("cam0",), 100.0)
    assert window.press(TAB, 100.0) is None
    assert window.says(100.1) == "there is only one camera"


def test_h_opens_the_help_and_esc_a_click_or_h_close_it() -> None:
    window = showing(selected=1)
    for close in (
        lambda: window.press(ESC, 100.0),
        lambda: window.click(740, 350, 100.0),
        lambda: window.press(ord("h"), 100.0),
    ):
        window.press(ord("h"), 100.0)
        assert window.help
        close()
        assert not window.help and window.selected == 1
    window.press(ESC, 100.0)
    assert window.selected is None


# --- when it is drawn ---


def test_it_is_drawn_again_only_when_something_changed_or_its_clocks_moved_on() -> None:
    window = showing()
    window.was_drawn(100.0)
    assert not window.due(100.0, 100.9)
    assert window.due(100.0, 102.0)  # the picture has stalled meanwhile
    window.notice("saved", 100.5)
    assert window.dirty
    window.was_drawn(100.5)
    drawn_at = 100.5 + NOTICE_S - 0.1
    assert window.says(drawn_at) == "saved" and window.due(drawn_at, 100.5 + NOTICE_S)
    assert window.says(100.5 + NOTICE_S) == ""


def test_a_pause_is_drawn_once() -> None:
    window = showing()
    paused = CameraState.model_validate(
        {"from": "capture.test.1", "camera": "cam0", "state": "online", "since": 5.0, "paused": True}
    )
    window.state(paused, 100.0)
    assert window.dirty
    window.was_drawn(100.0)
    for now in (101.0, 102.0, 160.0):
        window.state(paused, now)  # said every second
        assert not window.due(100.0, now)
    window.state(paused.model_copy(update={"paused": False}), 161.0)
    assert window.due(100.0, 161.0)


# --- where things are ---


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (3840, 2160), (300, 900), (2000, 200)])
def test_the_picture_keeps_its_shape_above_the_status_line(size: tuple[int, int]) -> None:
    places = layout(*size, 1280, 720)
    picture = places.picture
    assert abs(picture.width / picture.height - 16 / 9) < 0.05
    assert picture.y + picture.height <= places.status.y and places.status.y + places.status.height == size[1]
    assert picture.width in (size[0], size[0] - 1) or picture.height == places.status.y


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 50)])
def test_the_smallest_windows_have_a_layout(size: tuple[int, int]) -> None:
    places = layout(*size, 7680, 4320)
    assert places.picture.width >= 1 and places.picture.height >= 1


def test_a_face_that_somebody_asked_to_follow_is_selected_and_found_again_under_another_track() -> None:
    window = Window(("cam0",), 0.0)
    faces = five(640, 360)
    first, second = faces.faces[0].track, faces.faces[1].track

    def show(selected: int | None, at: float) -> None:
        window.take(preview(faces.model_copy(update={"selected": selected})), at)

    show(first, 1.0)
    assert window.selected == first
    show(None, 2.0)  # out of sight
    show(second, 3.0)  # the same person, another track
    assert window.selected == second
    window.press(ESC, 4.0)
    show(second, 4.1)  # let go here; the conductor has not heard of it yet
    assert window.selected is None and window.deselected == {"cam0"}


def test_a_face_that_is_let_go_during_a_stall_stays_so_and_one_that_was_out_of_sight_for_long_is_found_again() -> None:
    followed = five(selected=2)
    stalled = result(1000, 667, analysed=False, following=True)
    for pressed in (True, False):
        window = Window(("cam0",), 0.0)
        window.take(preview(followed), 1.0)
        window.take(preview(stalled), 1.1)
        if pressed:
            window.press(ESC, 1.2)
        else:
            window.take(preview(stalled), 1.2 + GONE_S)
        assert window.selected is None and bool(window.deselected) is pressed
        window.take(preview(followed), 1.3 + GONE_S)
        assert window.selected == (None if pressed else 2)


def test_only_what_was_selected_is_deselected_and_another_choice_makes_that_good() -> None:
    window = showing()
    window.press(ESC, 100.0)
    assert not window.deselected
    window.select(2, 100.0)
    window.click(1, 1, 100.0)  # beside all faces
    assert window.deselected
    window.select(1, 100.0)
    assert not window.deselected


def test_what_was_deselected_is_not_forgotten_for_what_is_pressed_next() -> None:
    for more in (ESC, TAB):
        window = Window(("cam0", "cam1"), 0.0)
        window.take(preview(five()), 0.0)
        window.select(2, 0.0)
        window.press(ESC, 1.0)
        window.press(more, 1.0)
        assert window.deselected == {"cam0"}


# --- a name for the selected face ---


def test_e_takes_a_name_for_the_selected_face_and_every_key_is_its_own() -> None:
    window = showing(selected=2)
    assert window.press(ord("e"), 100.0) is None
    for key in "eqs ":  # letters that mean something else without it
        assert window.press(ord(key), 100.0) is None
    assert window.entry is not None and (window.entry.track, window.entry.text) == (2, "eqs ")
    assert window.press(13, 100.0) == "enrol"
    assert window.entry.text == "eqs"


def test_esc_leaves_the_name_and_keeps_the_selection() -> None:
    window = showing(selected=2)
    window.press(ord("e"), 100.0)
    window.press(ESC, 100.0)
    assert window.entry is None and window.selected == 2


def test_e_without_a_face_says_what_to_do() -> None:
    for window in (showing(), Window(("cam0",), 100.0)):
        window.press(ord("e"), 100.0)
        assert window.entry is None and "Click on a face" in window.says(100.0)


def test_how_far_an_enrolment_is_and_what_to_do_is_told() -> None:
    window = showing()
    told = {
        "front": "look at the camera", "left": "turn the head slowly to the left",
        "right": "turn the head slowly to the right", None: "keep still",
    }  # fmt: skip
    for turn, words in told.items():
        enrolling = Enrolling(track=2, pictures=3, wanted=5, turn=turn)  # type: ignore[arg-type]
        window.take(preview(five(enrolling=enrolling)), 100.0)
        assert window.says(100.0) == f"enrolling: 3 of 5 pictures, {words}"
    window.notice("saved", 100.0)
    assert window.says(100.0) == "saved"
