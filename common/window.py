"""What the window knows and decides: the camera shown, the face selected, what is stale, what a key or a click means.

No pixels and no sockets: previews, states, keys and clicks go in with the time, and what to say comes out.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common import words
from common.drawing import Drawn, Rect, unit_for
from common.entry import NameEntry
from common.messages import CameraState, Face, Preview, Result

Action = Literal["quit", "snapshot", "webcam", "screen", "source", "camera", "fullscreen", "enrol", "pause"]

KEYS = (
    ("q", "quit"),
    ("s", "snapshot"),
    ("w", "webcam"),
    ("c", "screen"),
    ("o", "the configured source again"),
    ("p", "pause, and go on"),
    ("f", "full screen"),
    ("Tab", "next camera"),
    ("click", "select a face"),
    ("Esc", "deselect"),
    ("e", "enrol the selected face"),
    ("h", "this help"),
)
_ACTIONS: dict[str, Action] = {
    "q": "quit", "s": "snapshot", "w": "webcam", "c": "screen", "o": "source", "f": "fullscreen", "p": "pause",
}  # fmt: skip
_TAB, _ESC = 9, 27

STALE_S = 1.0  # a picture this old no longer passes for live
PATIENCE_S = 10.0  # after which waiting needs a hint what to do
NOTICE_S = 8.0
GONE_S = 10.0  # a selected face that was not seen this long is let go
_RATE_S = 2.0
_TRACKS = 256  # faces whose first sight is remembered


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a window of this size, in pixels; ``unit`` is the height of its text."""

    width: int
    height: int
    unit: int
    picture: Rect
    status: Rect


def layout(width: int, height: int, picture_width: int, picture_height: int) -> Layout:
    """Return the layout: the picture as large as it fits, undistorted, above a status line."""
    unit = unit_for(width, height)
    bar = min(height - 1, 2 * unit) if height > 1 else 0
    room = height - bar
    scale = min(width / picture_width, room / picture_height)
    shown_width = max(1, min(width, round(picture_width * scale)))
    shown_height = max(1, min(room, round(picture_height * scale)))
    picture = Rect((width - shown_width) // 2, (room - shown_height) // 2, shown_width, shown_height)
    return Layout(width, height, unit, picture, Rect(0, room, width, bar))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the picture is not live: a headline and, if known, the reason."""

    headline: str
    reason: str | None = None


class Window:
    """The window's memory. Times are seconds of a monotonic clock, given by the caller.

    Attributes:
        cameras, shown: all names, and the one that is looked at.
        result: of the picture on show; None while there is none.
        selected: track of the selected face.
        deselected: the cameras whose face somebody has let go, and whoever follows it has not been told; one that was
            let go because it has been out of sight for long is still to be found again.
        drawn: where the faces were drawn last; clicks are judged by it.
        panel, panel_was: where the panel is, and where it was in the drawing before.
        help: whether the overlay with the keys is open.
        entry: the name that is being typed for a face; keys belong to it.
        dirty: something changed since the window was drawn last.
    """

    def __init__(self, cameras: Sequence[str], now: float) -> None:
        self.cameras = tuple(cameras)
        self.shown = self.cameras[0]
        self.result: Result | None = None
        self.analysed = True
        self._latency_ms = 0.0  # of the last picture that was looked at
        self.selected: int | None = None
        self.deselected: set[str] = set()
        self._followed: int | None = None  # as the last picture with an analysis had it
        self.drawn: dict[int, Drawn] = {}
        self.panel: Rect | None = None
        self.panel_was: Rect | None = None
        self.help = False
        self.entry: NameEntry | None = None
        self.dirty = True
        self._told: tuple[object, ...] = ()  # what the last drawing said
        self._states: dict[str, CameraState] = {}
        self._since: dict[str, float] = {}  # monotonic time at which a camera's state began
        self._arrivals: deque[float] = deque()
        self._began = now
        self._notice = ""
        self._notice_until = now
        self._first_seen: OrderedDict[int, float] = OrderedDict()
        self._selected_at = now
        self._selected_face: Face | None = None

    # --- what comes in ---

    def arrived(self, now: float) -> None:
        """Note that a picture of the shown camera came, whether it will be drawn or not."""
        self._arrivals.append(now)
        while now - self._arrivals[0] > max(_RATE_S, 4 * self._interval()) or len(self._arrivals) > 600:
            self._arrivals.popleft()

    def take(self, preview: Preview, now: float) -> None:
        """Make this the picture on show."""
        self.result, self.analysed = preview.result, preview.analysed
        if not self.result.quiet:
            self._latency_ms = self.result.latency_ms
        followed = self.result.selected
        if followed is not None and followed not in (self._followed, self.selected):
            self.select(followed, now)  # somebody asked for it, or whom this window follows has come back
        if self.analysed:
            self._followed = followed
        for face in self.result.faces:
            self._first_seen.setdefault(face.track, now)
            self._first_seen.move_to_end(face.track)
            if face.track == self.selected:
                self._selected_at, self._selected_face = now, face
        while len(self._first_seen) > _TRACKS:
            self._first_seen.popitem(last=False)
        if self.selected is not None and now - self._selected_at > GONE_S:
            self.select(None, now)
            self._followed = None
        self.dirty = True

    def state(self, message: CameraState, now: float, wall: float | None = None) -> None:
        """Take a camera's state."""
        before = self._states.get(message.camera)
        if before is None or (before.state, before.since) != (message.state, message.since):
            ago = max(0.0, (time.time() if wall is None else wall) - message.since)
            self._since[message.camera] = now - ago
        self.dirty |= before is None or (before.state, before.reason, before.paused) != (
            message.state, message.reason, message.paused,
        )  # fmt: skip
        self._states[message.camera] = message

    def notice(self, text: str, now: float) -> None:
        """Say something in the status line for a few seconds."""
        self._notice, self._notice_until = words.one_line(text), now + NOTICE_S
        self.dirty = True

    def press(self, key: int, now: float) -> Action | None:
        """Take a key (OpenCV's code); return what the window's owner has to do, if anything.

        ``enrol``: ``entry`` holds the track and its name, and is to be taken away.
        """
        self.dirty = True
        if self.entry is not None:
            outcome = self.entry.press(key)
            if outcome == "cancelled":
                self.entry = None
            return "enrol" if outcome == "done" else None
        if key == _TAB:
            return "camera" if self._next_camera(now) else None
        if key == _ESC:
            if self.help:
                self.help = False
            else:
                self._deselect(now)
            return None
        letter = chr(key).lower() if 0 < key < 128 else ""
        if letter == "h":
            self.help = not self.help
        if letter == "e":
            self._begin_entry(now)
        return _ACTIONS.get(letter)

    def click(self, x: int, y: int, now: float) -> None:
        """Select the face at this point of the window: its tab or its box, the smallest first; none: deselect."""
        if self.help:
            self.help, self.dirty = False, True
            return
        if self.panel is not None and self.panel.holds(x, y):
            return
        tabs = [track for track, drawn in self.drawn.items() if drawn.tab.holds(x, y)]
        boxes = {track: drawn.box for track, drawn in self.drawn.items() if drawn.box.holds(x, y, margin=4)}
        hit = tabs or sorted(boxes, key=lambda track: boxes[track].width * boxes[track].height)
        if hit:
            self.select(hit[0], now)
        else:
            self._deselect(now)

    def select(self, track: int | None, now: float) -> None:
        """Select a face by its track."""
        self.selected, self._selected_at, self._selected_face, self.dirty = track, now, None, True
        if track is not None:
            self.deselected.discard(self.shown)
        for face in self.result.faces if self.result else ():
            if face.track == track:
                self._selected_face = face

    # --- what to show ---

    def due(self, drawn_at: float, now: float) -> bool:
        """Whether the window must be drawn again: something changed, or its clocks moved on."""
        if self.dirty or drawn_at < self._notice_until <= now:
            return True
        return now - drawn_at >= 1.0 and self._telling(now) != self._told

    def was_drawn(self, now: float) -> None:
        """Note that what there was to show at this time is on show."""
        self.dirty, self._told = False, self._telling(now)

    def trouble(self, now: float) -> Trouble | None:
        """Return why what is on show is not live, or None while it is."""
        state = self._states.get(self.shown)
        if state is not None and state.state == "ended":
            return Trouble("the source has ended", state.reason)
        if state is not None and state.state == "offline":
            return Trouble(f"offline for {words.clock(now - self._since[self.shown])}", state.reason)
        if state is not None and state.paused:
            return Trouble("paused", "nothing is analysed until it goes on: p")
        if self.result is None or not self._arrivals:
            waited = now - self._began
            long = f"none for {words.clock(waited)}: see python launch.py status" if waited > PATIENCE_S else None
            return Trouble("waiting for pictures…", long)
        silent = now - self._arrivals[-1]
        if state is not None and state.state == "stalled":
            return Trouble(f"picture stalled {_seconds(max(silent, now - self._since[self.shown]))}", state.reason)
        if silent >= max(STALE_S, 3 * self._interval()):
            return Trouble(f"picture stalled {_seconds(silent)}")
        return None

    @property
    def paused(self) -> bool:
        """Whether somebody has asked that the camera on show is not watched for now."""
        state = self._states.get(self.shown)
        return state is not None and state.paused

    @property
    def stalled(self) -> bool:
        """Whether the picture on show waited for its analysis in vain."""
        return not self.analysed and not (self.result is not None and self.result.quiet)

    def status(self, now: float) -> list[str]:
        """Return the status line's parts: camera, frames/s, latency, faces; or camera and what is wrong."""
        trouble = self.trouble(now)
        if trouble is not None:
            headline = trouble.headline + (f" – {trouble.reason}" if trouble.reason else "")
            return [self.shown, words.one_line(headline)]
        assert self.result is not None  # no trouble means that there is a picture
        parts = [self.shown, f"{self.rate(now):.0f}/s", f"{self._latency_ms:.0f} ms"]
        if self.stalled:
            return [*parts, "not analysed: the analysis is stalled"]
        return [*parts, words.counted(len(self.result.faces), "face") if self.result.faces else "nobody in view"]

    def says(self, now: float) -> str:
        """Return the notice, else how far an enrolment is, or nothing."""
        if now < self._notice_until:
            return self._notice
        enrolling = self.result.enrolling if self.result is not None else None
        return words.enrolling(enrolling) if enrolling is not None else ""

    def rate(self, now: float) -> float:
        """Return pictures per second of late."""
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(self._arrivals[-1] - self._arrivals[0], now - self._arrivals[-1], 1e-3)

    def face(self) -> tuple[Face, bool] | None:
        """Return the selected face as last seen, and whether it is in the picture on show; None: none is selected."""
        if self.selected is None or self._selected_face is None:
            return None
        here = self.result is not None and any(face.track == self.selected for face in self.result.faces)
        return self._selected_face, here

    def seen(self, now: float) -> str:
        """Return for how long the selected face has been seen, or gone."""
        found = self.face()
        if found is None:
            return ""
        if not found[1]:
            return f"out of sight {words.clock(now - self._selected_at)}"
        return f"seen {words.clock(now - self._first_seen.get(found[0].track, now))}"

    # --- inside ---

    def _deselect(self, now: float) -> None:
        if self.selected is not None:
            self.deselected.add(self.shown)
        self.select(None, now)

    def _telling(self, now: float) -> tuple[object, ...]:
        return (self.trouble(now), self.status(now), self.says(now), self.seen(now))

    def _begin_entry(self, now: float) -> None:
        if self.result is not None and any(face.track == self.selected for face in self.result.faces):
            assert self.selected is not None
            self.entry, self.help = NameEntry(self.selected), False
        else:
            self.notice("whom? Click on a face first", now)

    def _interval(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        return (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)

    def _next_camera(self, now: float) -> bool:
        if len(self.cameras) < 2:
            self.notice("there is only one camera", now)
            return False
        self.shown = self.cameras[(self.cameras.index(self.shown) + 1) % len(self.cameras)]
        self.result, self._followed, self._began = None, None, now
        self.drawn, self.panel = {}, None
        self._arrivals.clear()
        self.select(None, now)
        return True


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else words.clock(seconds)
