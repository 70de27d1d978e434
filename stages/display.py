"""The display stage: the window with the live picture, names and expressions."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from common import jpeg
from common.control import Argument, Asker, NoAnswer
from common.desktop import font_dir, screen_problem
from common.first_look import FirstLook, screen_grabber
from common.messages import CameraState, Message, MessageError, Reply
from common.news import Complaint
from common.scene import compose
from common.settings import Config
from common.sources.spec import without_password
from common.stage import Stage, StageError, main
from common.transport import Received, Socket
from common.watching import Viewer, read
from common.window import Action, Window

TITLE = "Mien"
FIRST_SIZE = (1024, 614)  # a picture of 16:9 and the status line
ENROL_S = 25.0  # crops of a turning head take some seconds
_TURN_MS = 15.0  # keys and clicks wait so long
_IDLE_AFTER_S, _IDLE_TURN_MS = 3.0, 125.0  # … with nothing on the move: asking the window costs most of what is left
_SOURCES: dict[Action, str] = {"webcam": "webcam", "screen": "screen"}


class DisplayStage(Stage):
    """Shows one camera at a time in a window; its keys and clicks are told by ``h``."""

    name = "display"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._complaint = Complaint()
        self._window = Window(tuple(config.cameras), time.monotonic())
        self._picture: NDArray[np.uint8] | None = None
        self._followed: int | None = None  # the track that the conductor was asked to follow
        self._follows_on: set[str] = set()  # the cameras on which somebody is followed at this window's wish
        self._following: set[str] = set()  # requests to do so
        self._asked: dict[str, tuple[Action, str]] = {}  # request: what for, which camera
        self._drawn_at = 0.0
        self._moved_at = time.monotonic()  # the last picture, key, move of the mouse or new size
        self._size = (0, 0)
        self._is_open = False
        self._first_look = FirstLook(None, 0.0)
        self._canvas: NDArray[np.uint8] | None = None  # what the window shows
        self._viewer: Viewer | None = None
        self._asker: Asker | None = None

    def open(self) -> None:
        problem = screen_problem()
        if problem is not None:
            raise StageError(f"{problem}. Run with --headless: the terminal shows the same faces")
        fonts = font_dir()
        if fonts is not None:
            os.environ.setdefault("QT_QPA_FONTDIR", str(fonts))
        cv2.setNumThreads(1)
        self._open_window()
        self._first_look = FirstLook(screen_grabber(), time.monotonic())
        self._viewer = Viewer(self.config)
        self._viewer.watch(self._window.shown)
        self.poller.add(self._viewer.socket)
        self._asker = Asker(self.config, self.news)
        self._draw(time.monotonic())

    def topics(self) -> tuple[str, ...]:
        return ("camera.",)

    def wait_ms(self) -> float:
        return _TURN_MS if time.monotonic() - self._moved_at < _IDLE_AFTER_S else _IDLE_TURN_MS

    def on_news(self, topic: str, message: Message) -> None:
        if isinstance(message, CameraState):
            self._window.state(message, time.monotonic())

    def handle(self, ready: set[Socket]) -> None:
        assert self._viewer is not None
        if self._viewer.socket in ready:
            self._read_previews()
        self._read_answers()
        self._read_keys()
        self._tell_selected()
        now = time.monotonic()
        if not self._first_look.done and self._is_open:
            self._look_at_screen(now)
        if self.finished:
            return
        if self._window_size() != self._size:
            self._moved_at = now
            self._draw(now)
        elif self._window.due(self._drawn_at, now):
            self._draw(now)

    def close(self) -> None:
        self._first_look.close()
        if self._viewer is not None:
            self.poller.remove(self._viewer.socket)
            self._viewer.close()
        if self._asker is not None:
            for camera in sorted(self._follows_on):  # nobody could end it any more, nor what is told of them
                self._follow(camera, None)
            self._asker.close()
        if self._is_open:
            cv2.destroyAllWindows()

    def detail(self) -> dict[str, float | str]:
        return {"camera": self._window.shown}

    # --- what comes in ---

    def _read_previews(self) -> None:
        assert self._viewer is not None
        newest: Received | None = None
        while (parts := self._viewer.receive()) is not None:
            self.meter.taken += 1
            self.meter.dropped += newest is not None  # only the newest is drawn
            self._window.arrived(time.monotonic())
            newest = parts
        if newest is None:
            return
        self._moved_at = time.monotonic()
        try:
            seen = read(newest)
            result = seen.preview.result
            self._picture = jpeg.decode(seen.jpeg, result.width, result.height)
        except MessageError as error:
            self.meter.bad_messages += 1
            self._complaint(self.log, "previews", error)
            return
        self._window.take(seen.preview, time.monotonic())

    def _tell_selected(self) -> None:
        """Have the conductor follow the face that was selected here, also when its track is lost and found again."""
        assert self._asker is not None
        selected, result = self._window.selected, self._window.result
        for camera in sorted(self._window.deselected):
            self._follow(camera, None)
        self._window.deselected.clear()
        if result is None or selected == self._followed:
            return
        if selected is not None and selected != result.selected:
            self._follow(self._window.shown, selected)
        self._followed = selected

    def _follow(self, camera: str, track: int | None) -> None:
        assert self._asker is not None
        self._following.add(self._asker.ask("conductor", "select", camera=camera, track=track, timeout_s=2.0))
        (self._follows_on.discard if track is None else self._follows_on.add)(camera)

    def _read_answers(self) -> None:
        assert self._asker is not None
        for request, answer in self._asker.answers():
            if request in self._following:
                self._following.discard(request)  # a track that has just ended cannot be followed: nothing to say
                continue
            action, camera = self._asked.pop(request)
            self._window.notice(_told(action, camera, answer), time.monotonic())

    def _read_keys(self) -> None:
        now = time.monotonic()
        key = cv2.pollKey()
        while key != -1:
            self._moved_at = now
            action = self._window.press(key, now)
            if action is not None:
                self._act(action, now)
            key = cv2.pollKey()
        if self._is_open and not _on_screen():
            self._is_open = False  # its frame's × was clicked
            self.finished = True

    def _on_mouse(self, event: int, x: int, y: int, flags: int, _: Any) -> None:
        self._moved_at = time.monotonic()
        if event == cv2.EVENT_LBUTTONDOWN:
            self._window.click(x, y, time.monotonic())

    # --- what is done ---

    def _open_window(self, size: tuple[int, int] = FIRST_SIZE) -> None:
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise StageError(f"this OpenCV opens no windows ({error.err}): pip install opencv-python") from error
        self._is_open = True
        cv2.resizeWindow(TITLE, *size)
        cv2.setMouseCallback(TITLE, self._on_mouse)

    def _look_at_screen(self, now: float) -> None:
        left, top, width, height = cv2.getWindowImageRect(TITLE)
        if self._canvas is None or self._canvas.shape[:2] != (height, width):
            return  # its size has just changed
        if self._first_look.blank(self._canvas, left, top, now):
            self.log.info("the window shows nothing: opening it anew")
            cv2.destroyWindow(TITLE)
            self._open_window((width, height))
            self._draw(now)

    def _act(self, action: Action, now: float) -> None:
        assert self._viewer is not None
        camera = self._window.shown
        if action == "quit":
            self.finished = True
        elif action == "camera":
            self._picture = None
            self._viewer.watch(camera)
        elif action == "fullscreen":
            full = cv2.getWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN) == cv2.WINDOW_FULLSCREEN
            cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_NORMAL if full else cv2.WINDOW_FULLSCREEN)
        elif action == "snapshot":
            self._window.notice("taking a snapshot…", now)
            self._ask(action, "snapshot", "snapshot", camera=camera)
        elif action == "pause":
            self._ask(action, "capture", "resume" if self._window.paused else "pause", camera=camera)
        elif action == "enrol":
            entry, self._window.entry = self._window.entry, None
            assert entry is not None
            self._ask(action, "conductor", "enrol", ENROL_S, camera=camera, track=entry.track, name=entry.text)
        else:
            source = _SOURCES.get(action) or self.config.cameras[camera].source
            self._window.notice(f"{camera}: changing to {without_password(source)}…", now)
            self._ask(action, "capture", "source", camera=camera, source=source)

    def _ask(self, action: Action, stage: str, do: str, timeout_s: float = 10.0, /, **args: Argument) -> None:
        assert self._asker is not None
        if any(asked == action for asked, _ in self._asked.values()):
            if action == "enrol":
                self._window.notice("somebody is being enrolled: one after the other", time.monotonic())
            return  # an impatient finger: the same is under way
        request = self._asker.ask(stage, do, timeout_s=timeout_s, **args)
        self._asked[request] = (action, self._window.shown)

    def _window_size(self) -> tuple[int, int]:
        if not self._is_open:
            return self._size
        _, _, width, height = cv2.getWindowImageRect(TITLE)
        return (width, height) if width > 0 and height > 0 else self._size or FIRST_SIZE

    def _draw(self, now: float) -> None:
        size = self._window_size()
        size = size if min(size) > 0 else FIRST_SIZE
        started = time.perf_counter()
        canvas = compose(self._window, self._picture, size, now)
        cv2.imshow(TITLE, canvas)
        self._canvas = canvas
        self.meter.worked((time.perf_counter() - started) * 1e3)
        self.meter.given += 1
        self._window.was_drawn(now)
        self._drawn_at, self._size = now, size


def _on_screen() -> bool:
    try:
        return bool(cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:
        return False  # Qt: with its last window, all that OpenCV could ask is gone


def _told(action: Action, camera: str, answer: Reply | NoAnswer) -> str:
    """Return what to say about the outcome of a request."""
    if isinstance(answer, NoAnswer):
        return str(answer)
    if answer.result.get("there") == "look":
        return f"{answer.error} (all the same: people add NAME --track TRACK --again)"
    if not answer.ok:
        return answer.error or f"{action}: it could not be done, and no reason came"
    if action == "enrol":
        return f"enrolled {answer.result.get('person')}"
    if action == "snapshot":
        kept = Path(str(answer.result.get(camera)))
        return f"saved {kept.name}.jpg in {kept.parent}"
    if action == "pause":
        return f"{camera} is paused" if answer.result.get("paused") else f"{camera} goes on"
    return f"{camera} shows {answer.result.get('source', action)}"


if __name__ == "__main__":
    raise SystemExit(main(DisplayStage))
