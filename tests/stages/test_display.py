from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from common import config as configuration
from common import jpeg, snapshots
from common.desktop import screen_problem
from common.drawing import GROUND, INK, QUIET, Rect, tab_of, unit_for
from common.lettering import Colour, patch
from common.messages import CameraState, Control, Reply, Stats, pack
from common.news import NewsReader, NewsWriter
from common.scene import CURSOR, PANEL, PROMPT, WARNING
from common.settings import Config
from common.transport import opened
from common.window import GONE_S, layout
from stages.display import FIRST_SIZE, DisplayStage
from tests.conftest import end, stage_environment, start_stage, wait_until
from tests.showing import Pictures, Screen, await_stages, contains, five, photo, preview, result

UNIT = unit_for(*FIRST_SIZE)
Talking = Callable[[NewsReader, NewsWriter], tuple[NewsReader, NewsWriter]]


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def two(config: Config) -> Config:
    """The configuration with two cameras, saved for the stages."""
    cameras = {"cam0": {"source": "demo"}, "cam1": {"source": "demo:crowd"}}
    made = configuration.load(config.run_dir / "config.json", overrides={"cameras": cameras}, environment={})
    configuration.save(made, config.run_dir / "config.json")
    return made


@pytest.fixture
def pictures(two: Config) -> Iterator[Pictures]:
    made = Pictures(two)
    yield made
    made.close()


FRONT = """
import ctypes, time
xlib = ctypes.CDLL("libX11.so.6")
xlib.XOpenDisplay.restype = ctypes.c_void_p
display = ctypes.c_void_p(xlib.XOpenDisplay(None))
window = xlib.XCreateSimpleWindow(display, xlib.XDefaultRootWindow(display), 0, 0, 1300, 800, 0, 0, 0)
xlib.XMapWindow(display, window)
xlib.XSync(display, 0)
print("in front", flush=True)
while True:
    xlib.XRaiseWindow(display, window)
    xlib.XSync(display, 0)
    time.sleep(0.005)
"""


def shows(mien: Mien, part: np.ndarray, what: str = "a face") -> None:
    """Wait until the window shows this."""
    mien.await_seen(lambda: contains(mien.picture(), part), what)


class Mien:
    """A running display stage and what can be seen of it."""

    def __init__(self, config: Config, screen: Screen) -> None:
        self.screen = screen
        environment = stage_environment() | {"DISPLAY": screen.display}
        self.process = start_stage("display", config, env=environment)
        try:
            wait_until(lambda: self.process.poll() is not None or screen.window(), 60, "a window")
            assert self.process.poll() is None, "the display stage has ended"
        except BaseException:
            end(self.process, 20)
            raise

    def picture(self) -> np.ndarray:
        """Return what the window shows; it stands in the screen's upper left corner."""
        told = self.screen.do("getwindowgeometry", "--shell", self.screen.window())
        if not told:
            return np.zeros((1, 1, 3), np.uint8)  # it is being opened anew
        place = dict(line.split("=") for line in told.split("\n"))
        x, y, width, height = (int(place[key]) for key in ("X", "Y", "WIDTH", "HEIGHT"))
        return self.screen.picture()[y : y + height, x : x + width]

    def says(
        self, text: str, colour: Colour = INK, ground: Colour = GROUND, *, size: int = UNIT, weight: int = 400
    ) -> bool:
        return contains(self.picture(), patch(text, size, colour, ground, weight))

    def await_text(self, text: str, *colours: Colour, **how: int) -> None:
        self.await_seen(lambda: self.says(text, *colours, **how), f"the window says {text!r}")

    def await_seen(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until it is seen; a failure tells what is there instead, and where there is a picture of it."""
        try:
            wait_until(seen, 30, what)
        except pytest.fail.Exception as failure:
            kept = Path(tempfile.mkdtemp(prefix="mien-window-")) / "screen.png"
            cv2.imwrite(str(kept), self.screen.picture())
            place = self.screen.do("getwindowgeometry", self.screen.window())
            pytest.fail(f"{failure}; the screen is kept in {kept}, the window is {' '.join(place.split())}")

    def press(self, key: str) -> None:
        self.screen.do("mousemove", "5", "5", "key", key)

    def click(self, track: int) -> None:
        """Click on a face of ``five()``."""
        place = layout(*FIRST_SIZE, 640, 360).picture
        x, y, width, height = five(640, 360).faces[track - 1].box
        across, down = (x + width / 2) / 640 * place.width, (y + height / 2) / 360 * place.height
        self.screen.do("mousemove", str(round(place.x + across)), str(round(place.y + down)), "click", "1")


@pytest.fixture
def stages(two: Config, bus: object, pictures: Pictures) -> Iterator[None]:
    processes = [start_stage(name, two) for name in ("preview", "snapshot")]
    await_stages(two, "preview", "snapshot")
    yield
    assert [end(process, 20) for process in processes] == [0, 0]


@pytest.fixture
def mien(two: Config, bus: object, screen: Screen) -> Iterator[Mien]:
    made = Mien(two, screen)
    yield made
    assert end(made.process, 20) == 0


@pytest.fixture
def talking() -> Iterator[Talking]:
    """Takes a reader and a writer, which are closed in the end, whatever the test comes to."""
    with ExitStack() as opened_ones:

        def keep(reader: NewsReader, writer: NewsWriter) -> tuple[NewsReader, NewsWriter]:
            opened_ones.callback(reader.close)
            opened_ones.callback(writer.close)
            return reader, writer

        yield keep


def test_a_window_that_stays_blank_is_opened_anew(two: Config, bus: object, screen: Screen) -> None:
    """Another window stands in front of it all the time: it looks just like one that Qt has forgotten to paint."""
    front = subprocess.Popen(
        [sys.executable, "-c", FRONT], env=stage_environment() | {"DISPLAY": screen.display}, stdout=subprocess.PIPE
    )
    assert front.stdout is not None and front.stdout.readline() == b"in front\n"
    mien = Mien(two, screen)
    first = screen.window()
    wait_until(lambda: screen.window() not in ("", first), 60, "another window")
    front.kill()
    front.communicate(timeout=10)
    mien.await_text("waiting for pictures…", WARNING)
    assert end(mien.process, 20) == 0


def test_it_waits_and_then_shows_faces_with_their_names(stages: object, mien: Mien, pictures: Pictures) -> None:
    mien.await_text("waiting for pictures…", WARNING)
    pictures.cameras = {"cam0"}
    for one in five(640, 360).faces:
        shows(mien, tab_of(one, UNIT, 1024), f"the tab of {one.track}")
    assert mien.says("cam0", weight=600) and mien.says("h  help", QUIET)


def test_a_click_selects_a_face_and_its_bars_are_shown(stages: object, mien: Mien, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    mien.await_text("cam0", weight=600)
    shows(mien, tab_of(five(640, 360).faces[1], UNIT, 1024), "the second face")
    mien.click(2)
    mien.await_text("sad", INK, PANEL, weight=600)
    assert mien.says("70 %", INK, PANEL, weight=600) and mien.says("neutral", QUIET, PANEL)
    mien.press("Escape")
    wait_until(lambda: not mien.says("neutral", QUIET, PANEL), 30, "the panel is gone")


def test_whoever_is_deselected_during_a_stall_is_followed_no_more(config: Config) -> None:
    asked: list[int | None] = []

    class Asking:
        def ask(self, stage: str, do: str, *, camera: str, track: int | None, timeout_s: float) -> str:
            asked.append(track)
            return str(len(asked))

    stage = DisplayStage(config)
    try:
        stage._asker = Asking()  # type: ignore[assignment]
        window = stage._window
        window.take(preview(five()), 0.0)
        window.select(2, 0.0)
        stage._tell_selected()
        window.take(preview(five(selected=2)), 0.1)
        window.take(preview(result(1000, 667, analysed=False, following=True)), 0.2)
        stage._tell_selected()
        window.press(27, 0.3)
        stage._tell_selected()
        assert asked == [2, None]
        window.take(preview(five(selected=2)), 0.4)  # on its way when it was deselected
        stage._tell_selected()
        window.take(preview(five()), 0.5)
        stage._tell_selected()
        assert asked == [2, None] and window.selected is None
        window.select(3, 0.6)
        stage._tell_selected()
        window.take(preview(result(1000, 667, following=True)), 0.7 + GONE_S)  # out of sight, and still to be found
        stage._tell_selected()
        assert asked == [2, None, 3] and window.selected is None
    finally:
        stage._inbox.close()
        stage.news.close()


def test_whoever_was_followed_by_a_window_that_is_closed_is_followed_no_more(
    two: Config, stages: object, mien: Mien, pictures: Pictures, talking: Talking
) -> None:
    reader, _ = talking(NewsReader(two, ("control.conductor",)), NewsWriter(two, "conductor.test.1"))
    asked: list[object] = []

    def wanted() -> list[object]:
        read = (message for _, message in reader.read(timeout_ms=20) if isinstance(message, Control))
        asked.extend(message.args.get("track") for message in read if message.do == "select")
        return asked

    pictures.cameras = {"cam0"}
    shows(mien, tab_of(five(640, 360).faces[1], UNIT, 1024), "the second face")
    mien.click(2)
    wait_until(lambda: 2 in wanted(), 30, "it is followed")
    mien.press("q")
    wait_until(lambda: wanted()[-1] is None, 30, "it is followed no more")
    assert mien.process.wait(20) == 0


def test_s_keeps_a_snapshot_and_says_where(two: Config, stages: object, mien: Mien, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    shows(mien, tab_of(five(640, 360).faces[1], UNIT, 1024), "a face")
    mien.press("s")
    folder = snapshots.folder(two)
    wait_until(lambda: folder.is_dir() and list(folder.glob("*.json")), 30, "a snapshot")
    mien.await_text("saved cam0-")


def test_a_name_is_typed_for_a_face_and_the_enrolment_is_shown(
    two: Config, stages: object, mien: Mien, pictures: Pictures, talking: Talking
) -> None:
    reader, writer = talking(NewsReader(two, ("control.conductor",)), NewsWriter(two, "conductor.test.1"))
    asked: list[Control] = []

    def request() -> Control | None:
        asked.extend(message for _, message in reader.read(timeout_ms=20) if isinstance(message, Control))
        return next((one for one in asked if one.do == "enrol"), None)

    pictures.cameras = {"cam0"}
    shows(mien, tab_of(five(640, 360).faces[1], UNIT, 1024), "the second face")
    mien.click(2)
    mien.await_text("neutral", QUIET, PANEL)
    mien.press("e")
    mien.await_text(PROMPT, QUIET, PANEL)

    def typed(text: str) -> bool:
        return mien.says(text + CURSOR, INK, PANEL, weight=600)

    for _ in range(5):
        mien.press("Shift_L")
        mien.press("z")
        mien.await_seen(lambda: typed("Z") or typed("z"), "the letter in the window")
        if typed("Z"):
            break
        mien.press("BackSpace")  # on a busy machine Qt loses a key event now and then: of Shift, here
        mien.await_text(PROMPT, QUIET, PANEL)
    for key, text in (("o", "Zo"), ("q", "Zoq"), ("BackSpace", "Zo")):
        mien.press(key)
        mien.await_text(text + CURSOR, INK, PANEL, weight=600)
    mien.press("Return")
    first = wait_until(request, 30, "a request to enrol")
    assert first.args == {"camera": "cam0", "track": 2, "name": "Zo"}
    pictures.fields = {"enrolling": {"track": 2, "pictures": 1, "wanted": 5, "turn": "left"}}
    mien.await_text("enrolling: 1 of 5 pictures, turn the head slowly to the left")
    pictures.fields = {}
    writer.publish(
        Reply(sender="conductor.test.1", request=first.request, ok=True, result={"person": "#3 Zo"}), first.request
    )
    mien.await_text("enrolled #3 Zo")


def test_w_and_c_ask_for_another_source_and_the_outcome_is_told(
    two: Config, stages: object, mien: Mien, pictures: Pictures, talking: Talking
) -> None:
    reader, writer = talking(NewsReader(two, ("control.capture",)), NewsWriter(two, "capture.test.1"))
    asked: list[Control] = []

    def request(source: str) -> Control | None:
        asked.extend(message for _, message in reader.read(timeout_ms=20) if isinstance(message, Control))
        return next((one for one in asked if one.args == {"camera": "cam0", "source": source}), None)

    def answer(reply: Reply, shown: str) -> None:
        """Publish until it is shown: what is published before the writer is connected reaches nobody."""

        def said() -> bool:
            writer.publish(reply, reply.request)
            return mien.says(shown)

        wait_until(said, 30, f"the window says {shown!r}")

    mien.press("w")
    first = wait_until(lambda: request("webcam"), 30, "a request for the webcam")
    assert first.do == "source"
    answer(Reply(sender="c", request=first.request, ok=False, error="there is no webcam 0"), "there is no webcam 0")
    mien.press("c")
    second = wait_until(lambda: request("screen"), 30, "a request for the screen")
    answer(Reply(sender="c", request=second.request, ok=True, result={"source": "screen"}), "cam0 shows screen")
    mien.press("o")
    wait_until(lambda: request("demo"), 30, "a request for the configured source")


def test_p_pauses_the_camera_and_lets_it_go_on(
    two: Config, stages: object, mien: Mien, pictures: Pictures, talking: Talking
) -> None:
    reader, writer = talking(NewsReader(two, ("control.capture",)), NewsWriter(two, "capture.test.1"))
    asked: list[Control] = []

    def request(do: str) -> Control | None:
        asked.extend(message for _, message in reader.read(timeout_ms=20) if isinstance(message, Control))
        return next((one for one in asked if (one.do, one.args) == (do, {"camera": "cam0"})), None)

    mien.press("p")
    first = wait_until(lambda: request("pause"), 30, "a request to pause")
    fields = {"from": "capture.test.1", "camera": "cam0", "state": "online", "since": time.time(), "paused": True}
    paused = CameraState.model_validate(fields)

    def said() -> bool:
        writer.publish(Reply(sender="c", request=first.request, ok=True, result={"paused": True}), first.request)
        writer.publish(paused, "cam0")
        return mien.says("cam0 is paused")

    mien.await_seen(said, "the window says that it is paused")
    mien.await_text("paused", WARNING)
    mien.press("p")
    wait_until(lambda: request("resume"), 30, "a request to go on")


def test_the_password_of_a_camera_is_not_shown(config: Config, bus: object, screen: Screen) -> None:
    cameras = {"cam0": {"source": "rtsp://nurse:secret@127.0.0.1:9/live"}}
    made = configuration.load(config.run_dir / "config.json", overrides={"cameras": cameras}, environment={})
    configuration.save(made, config.run_dir / "config.json")
    mien = Mien(made, screen)
    mien.await_text("waiting for pictures…", WARNING)
    mien.press("o")
    mien.await_text("cam0: changing to rtsp://127.0.0.1:9/live…")
    assert end(mien.process, 20) == 0


def test_tab_shows_the_next_camera_and_asks_for_no_other(stages: object, mien: Mien, pictures: Pictures) -> None:
    pictures.cameras = {"cam0", "cam1"}
    wait_until(lambda: pictures.asked == {b"cam0"}, 30, "cam0 is asked for")
    mien.press("Tab")
    wait_until(lambda: pictures.asked == {b"cam1"}, 30, "cam1 is asked for, and cam0 no more")
    mien.await_text("cam1", weight=600)
    shows(mien, tab_of(five(640, 360).faces[1], UNIT, 1024), "a face")


def test_pictures_that_stop_do_not_look_live(two: Config, stages: object, mien: Mien, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    tab = tab_of(five(640, 360).faces[1], UNIT, 1024)
    shows(mien, tab, "a face")
    live = mien.picture().mean()
    pictures.cameras = set()
    mien.await_text("picture stalled", INK, size=round(UNIT * 1.6), weight=600)
    assert mien.picture().mean() < live * 0.5 and not contains(mien.picture(), tab)
    writer = NewsWriter(two, "capture.test.1")
    gone = CameraState(sender="c", camera="cam0", state="offline", since=time.time() - 600, reason="it was unplugged")
    wait_until(lambda: writer.publish(gone, "cam0") or mien.says("it was unplugged", QUIET), 30, "the reason")
    writer.close()
    pictures.cameras = {"cam0"}
    back = NewsWriter(two, "capture.test.2")
    online = CameraState(sender="c", camera="cam0", state="online", since=time.time())
    wait_until(lambda: back.publish(online, "cam0") or contains(mien.picture(), tab), 30, "the faces are back")
    back.close()


def test_it_fits_whatever_size_the_window_gets(stages: object, mien: Mien, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    for width, height in ((640, 360), (1280, 720), (320, 600)):
        mien.screen.do("windowsize", mien.screen.window(), str(width), str(height))
        unit = unit_for(width, height)
        tab = tab_of(five(640, 360).faces[1], unit, layout(width, height, 640, 360).picture.width)

        def fits(size: tuple[int, int] = (height, width), tab: np.ndarray = tab) -> bool:
            shown = mien.picture()
            return shown.shape[:2] == size and contains(shown, tab)

        wait_until(fits, 30, f"a window of {width}×{height}")


def test_bad_previews_are_counted_and_the_next_good_one_is_shown(two: Config, mien: Mien) -> None:
    publisher = opened("previews", two.endpoint("previews"), "xpub", bind=True)
    figures = NewsReader(two, ("stats.display",))
    good = [b"preview.cam0", pack(preview(five(640, 360))), jpeg.encode(photo(640, 360), 90)]
    bad = [
        [b"preview.cam0"],
        [b"preview.cam0", b"\xc1", good[2]],
        [b"preview.cam0", b"\x81\xa1a" * 1000 + b"\x80", good[2]],
        [b"preview.cam0", good[1], b"no jpeg"],
        [b"preview.cam0", good[1], good[2][:2000]],
        [b"preview.cam0", good[1], jpeg.encode(photo(320, 180), 90)],
    ]
    counted = 0

    def told() -> bool:
        nonlocal counted
        publisher.send(bad[counted % len(bad)])
        for _, stats in figures.read(timeout_ms=50):
            assert isinstance(stats, Stats)
            counted = stats.bad_messages
        return counted >= len(bad)

    wait_until(told, 20, "every kind of bad preview was counted")
    tab = tab_of(five(640, 360).faces[1], UNIT, 1024)
    wait_until(lambda: publisher.send(good) and contains(mien.picture(), tab), 30, "the good one is shown")
    publisher.close()
    figures.close()


@pytest.mark.parametrize("way", ["q", "×"])
def test_q_and_the_cross_of_the_window_end_it(two: Config, bus: object, screen: Screen, way: str) -> None:
    mien = Mien(two, screen)
    mien.await_text("waiting for pictures…", WARNING)
    if way == "q":
        mien.press("q")
    else:
        screen.close_window()
    assert mien.process.wait(20) == 0


@pytest.mark.parametrize(
    ("display", "told"),
    [(None, "DISPLAY is not set"), (":9999", "nothing answers there"), ("nonsense", "not the name of a display")],
)
def test_without_a_screen_it_says_what_to_do_and_does_not_crash(config: Config, display: str | None, told: str) -> None:
    environment = {name: value for name, value in stage_environment().items() if "DISPLAY" not in name}
    if display is not None:
        environment["DISPLAY"] = display
    process = start_stage("display", config, env=environment, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2  # an abort would be -6
    assert told in said.decode() and "--headless" in said.decode() and "Traceback" not in said.decode()


def test_a_screen_that_refuses_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that nobody else uses: it begins anew whenever its only client goes."""
    parts = (b"", b"", b"MIT-MAGIC-COOKIE-1", bytes(range(16)))
    key = b"\xff\xff" + b"".join(len(part).to_bytes(2, "big") + part for part in parts)  # for any display
    (tmp_path / "server").write_bytes(key)
    monkeypatch.setenv("XAUTHORITY", str(tmp_path / "ours"))
    command = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-auth", tmp_path / "server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        display = {"DISPLAY": f":{server.stdout.readline().strip()}"}
        refused = screen_problem(display)
        soon = threading.Timer(0.3, (tmp_path / "ours").write_bytes, (key,))
        soon.start()
        problem = screen_problem(display)
        soon.join()
        server.terminate()
    assert "refuses this user" in (refused or "") and problem is None


def test_the_first_size_leaves_no_margin_around_a_wide_picture() -> None:
    assert layout(*FIRST_SIZE, 1280, 720).picture == Rect(0, (FIRST_SIZE[1] - 2 * UNIT - 576) // 2, 1024, 576)
