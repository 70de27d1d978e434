"""The terminal's live table: who is seen and how they look. Plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common import words
from common.clock import to_tick_s
from common.expressions import COLOURS
from common.messages import CameraState, Correction, Face, Message, Result, Stats
from common.news import NewsReader
from common.outlet import written
from common.settings import Config

TOPICS = ("results.", "camera.", "corrections.")
REFRESH_S = 0.25
QUIET_S = 2.0  # without news for so long, all has been said, and only the clocks of a terminal move on
QUIET_REFRESH_S = 1.0
LINES_S = 4  # plain lines a second at most, in the long run
_GONE_S = 1.0  # a face unseen this long has left
_STALE_S = 1.0
_SETTLED_S = 0.7  # plain lines tell what has lasted this long: a log is no place for what passes
_RATE_S = 2.0
_LEFT = 64
_BAR = 16


@dataclass(slots=True)
class _Row:
    """A face that is being seen."""

    face: Face
    seen_at: float
    since: float  # of what is told about it
    told: str = ""  # the plain line's words that were printed last
    tells: str = ""  # now


class _Camera:
    """What is known of one camera."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.began = now
        self.state: CameraState | None = None
        self.state_since = now
        self.result: Result | None = None
        self.arrivals: list[float] = []
        self.rows: dict[int, _Row] = {}
        self.left: list[_Row] = []  # faces whose leaving was not told yet
        self.told = ""

    def trouble(self, now: float) -> str | None:
        """Return why nothing live can be told of it, or None."""
        state = self.state
        if state is not None and state.state in ("offline", "ended"):
            reason = f" – {words.one_line(state.reason)}" if state.reason else ""
            if state.state == "ended":
                return f"the source has ended{reason}"
            return f"offline for {words.clock(now - self.state_since)}{reason}"
        if state is not None and state.paused:
            return "paused: nothing is analysed until it goes on"
        if self.result is None or not self.arrivals:
            return "waiting for pictures…"
        silent = now - self.arrivals[-1]
        if silent > _STALE_S or (state is not None and state.state == "stalled"):
            return f"picture stalled for {silent:.0f} s"
        return None

    def rate(self, now: float) -> float:
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(1e-3, self.arrivals[-1] - self.arrivals[0], now - self.arrivals[-1])


class LiveTable:
    """Who is seen and how they look, fed with the bus's messages.

    Args:
        cameras: names, in the order in which they are shown.
    """

    def __init__(self, console: Console, cameras: Iterable[str]) -> None:
        self.console = console
        self._cameras = {name: _Camera(name, time.monotonic()) for name in cameras}
        self._dropped: dict[str, int] = {}
        self._budget, self._budget_at = float(LINES_S), time.monotonic()

    def update(self, topic: str, message: Message, now: float | None = None) -> bool:
        """Take a message of the bus; ``now``: the monotonic time it came. Return whether it is news to be shown."""
        now = time.monotonic() if now is None else now
        if isinstance(message, Stats):
            self._dropped[message.sender] = message.dropped
            return False
        if isinstance(message, CameraState):
            return self._state(self._camera(message.camera, now), message, now)
        if isinstance(message, Result):
            self._result(self._camera(message.camera, now), message, now)
        elif isinstance(message, Correction):
            self._correct(self._camera(message.camera, now), message, now)
        return True

    def quiet(self, now: float) -> bool:
        """Whether no picture has been analysed for a while."""
        return all(not camera.arrivals or now - camera.arrivals[-1] > QUIET_S for camera in self._cameras.values())

    def render(self, now: float | None = None) -> RenderableType:
        """Return the table as it is now."""
        now = time.monotonic() if now is None else now
        parts: list[RenderableType] = []
        for camera in self._cameras.values():
            self._forget(camera, now)
            parts.append(self._top_line(camera, now))
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for title in ("camera", "who", "looks", "", "", "for"):
            table.add_column(title, no_wrap=True, justify="right" if title == "for" else "left")
        for camera in self._cameras.values():
            if camera.trouble(now) is None:
                for row in camera.rows.values():
                    table.add_row(*_cells(camera, row, now))
        if table.row_count:
            parts.append(table)
        return Group(*parts)

    def lines(self, now: float | None = None) -> list[str]:
        """Return what changed for good since the last call, a plain line each; few at a time, the rest later."""
        now = time.monotonic() if now is None else now
        self._budget = min(float(LINES_S), self._budget + (now - self._budget_at) * LINES_S)
        self._budget_at = now
        told: list[str] = []
        for camera in self._cameras.values():
            self._tell_state(camera, now, told)
            self._tell_faces(camera, now, told)
        return told

    # --- what comes in ---

    def _camera(self, name: str, now: float) -> _Camera:
        return self._cameras.setdefault(name, _Camera(name, now))

    def _state(self, camera: _Camera, message: CameraState, now: float) -> bool:
        before, camera.state = camera.state, message
        if before is None or before.state != message.state:
            camera.state_since = now - max(0.0, time.time() - message.since)
            return True
        return (before.reason, before.paused) != (message.reason, message.paused)

    def _result(self, camera: _Camera, result: Result, now: float) -> None:
        if not result.analysed:
            return
        if camera.result is not None and camera.result.run != result.run:
            camera.arrivals.clear()
        camera.result = result
        camera.arrivals.append(now)
        while now - camera.arrivals[0] > _RATE_S and len(camera.arrivals) > 2:
            camera.arrivals.pop(0)
        for face in result.faces:
            row = camera.rows.get(face.track)
            if row is None:
                row = camera.rows[face.track] = _Row(face, now, now)
            row.face, row.seen_at = face, now
            self._retell(row, now)

    def _correct(self, camera: _Camera, correction: Correction, now: float) -> None:
        row = camera.rows.get(correction.track)
        if row is not None:
            row.face = row.face.model_copy(update={"identity": correction.now})
            self._retell(row, now)

    def _retell(self, row: _Row, now: float) -> None:
        tells = words.tells(row.face)
        if tells != row.tells:
            row.tells, row.since = tells, now

    def _forget(self, camera: _Camera, now: float) -> None:
        # While no picture is analysed nobody can be said to have left.
        newest = camera.arrivals[-1] if camera.arrivals else now
        gone = [track for track, row in camera.rows.items() if newest - row.seen_at > _GONE_S]
        camera.left += [camera.rows.pop(track) for track in gone]
        del camera.left[:-_LEFT]

    # --- a terminal ---

    def _top_line(self, camera: _Camera, now: float) -> Text:
        line = Text(camera.name, style="bold")
        trouble = camera.trouble(now)
        if trouble is not None:
            return line.append("  ").append(trouble, style="not bold yellow")
        assert camera.result is not None  # no trouble means that there is a result
        figures = (
            f"{camera.rate(now):.0f}/s",
            f"{camera.result.latency_ms:.0f} ms",
            words.counted(len(camera.rows), "face"),
            f"{sum(self._dropped.values())} dropped",
        )
        return line.append("  " + "  ".join(figures), style="not bold dim")

    # --- plain lines ---

    def _tell_state(self, camera: _Camera, now: float, told: list[str]) -> None:
        state = camera.state.state if camera.state is not None else ""
        reason = camera.state.reason if camera.state is not None else None
        if not state and camera.arrivals:
            state = "online"
        if state and state != camera.told and self._affords():
            camera.told = state
            told.append(words.one_line(f"{camera.name}: {state}" + (f" – {reason}" if reason else "")))

    def _tell_faces(self, camera: _Camera, now: float, told: list[str]) -> None:
        self._forget(camera, now)
        while camera.left and (not camera.left[0].told or self._affords()):
            row = camera.left.pop(0)
            if row.told:
                told.append(f"{camera.name}: {words.who(row.face.identity)} (track {row.face.track}) has left")
        for row in camera.rows.values():
            settled = now - row.since >= _SETTLED_S and row.tells != words.WAITING
            if settled and row.tells != row.told and self._affords():
                row.told = row.tells
                told.append(f"{camera.name}: track {row.face.track}: {row.tells}{_share(row.face)}")

    def _affords(self) -> bool:
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True


def run(config: Config, stop: threading.Event, out: TextIO) -> None:
    """Show the live table on ``out`` until ``stop`` is set; plain lines where ``out`` is no terminal."""
    console = Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=not out.isatty())
    table = LiveTable(console, config.cameras)
    # Plain lines say nothing of what was dropped.
    reader = NewsReader(config, (*TOPICS, "stats.") if console.is_terminal else TOPICS)
    try:
        if not console.is_terminal:
            while not stop.is_set():
                _read(reader, table)
                if not all(written(line, out) for line in table.lines()):
                    return
            return
        with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
            while not stop.is_set():
                _read(reader, table)
                live.update(table.render(), refresh=True)
    finally:
        reader.close()


def _read(reader: NewsReader, table: LiveTable) -> None:
    """Take in what comes during one refresh: a long one while nothing is analysed, until something comes."""
    now = time.monotonic()
    until = now + (to_tick_s(QUIET_REFRESH_S) if table.quiet(now) else REFRESH_S)
    while (left := until - time.monotonic()) > 0:
        for topic, message in reader.read(timeout_ms=max(1, int(left * 1000))):
            if table.update(topic, message):
                until = min(until, time.monotonic() + REFRESH_S)


def _cells(camera: _Camera, row: _Row, now: float) -> tuple[Text, ...]:
    identity, expression = row.face.identity, row.face.expression
    who = Text(words.who(identity), style="bold" if identity.status == "known" else "dim")
    who.append(f"  #{row.face.track}", style="not bold dim")
    looks, bar, share = Text(words.looks(expression), style="dim"), Text(), Text()
    if expression.status == "ok" and expression.label:
        colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[expression.label])
        looks = Text("■ ", style=colour).append(expression.label, style="default")
        if expression.confidence is not None:
            filled = round(expression.confidence * _BAR)
            bar = Text("━" * filled, style=colour).append("━" * (_BAR - filled), style="bright_black")
            share = Text(f"{expression.confidence * 100:.0f} %")
    return Text(camera.name), who, looks, bar, share, Text(words.clock(now - row.since), style="dim")


def _share(face: Face) -> str:
    confidence = face.expression.confidence
    return f" {confidence * 100:.0f} %" if face.expression.status == "ok" and confidence is not None else ""
