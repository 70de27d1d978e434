"""What all routes of the page share: the configuration, the desk, the feed, and what the news has said so far.

Belongs to the event loop of the page; news and pictures are handed in by ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

from common import alert_store
from common.alert_store import Episode
from common.ledger import LedgerError
from common.messages import Alert, CameraState, Message, Result, Stats
from common.meter import percentile
from common.page.access import Session, User
from common.page.desk import Desk
from common.page.feed import Feed
from common.page.recent import Recent
from common.page.stream import Streams
from common.page.unwritten import Unwritten
from common.settings import Config
from common.status import Board
from common.store import Store, StoreError

TICK_S = 1.0
TOLD_EVERY_S = 5.0  # browsers are told how things stand at least so often
_TIMED = 300  # results whose times are kept, of all cameras together
_STALE_AFTER_S = 5.0  # a stage that is not well for so long is worth a word
ALERTS_EVERY_S = 15.0
PEOPLE_EVERY_S = 2.0  # somebody forgotten elsewhere is forgotten here so soon
OPEN_EVERY_S = 5.0  # while one is open: how long nothing could be assessed is told with it

log = logging.getLogger("mien.dashboard")


@dataclass(slots=True)
class Site:
    """The page's memory.

    Attributes:
        episodes: those that are open; what the store does not hold yet has the number 0.
        alert_steps: goes up with every step of them, for pages that show them.
        alert_news: goes up with everything that may change what is shown of those that are over.
        opened: how many were opened since the page's start, for browsers that make a sound.
        unwell_since: since when each process that is not well is so, monotonic seconds.
    """

    config: Config
    desk: Desk
    feed: Feed
    recent: Recent = field(default_factory=Recent)
    streams: Streams = field(default_factory=Streams)
    board: Board = field(default_factory=Board)
    states: dict[str, tuple[CameraState, float]] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    alert_steps: int = 0
    alert_news: int = 0
    opened: int = 0
    started_at: float = field(default_factory=time.monotonic)
    _unwritten: Unwritten = field(default_factory=Unwritten)
    _stored: list[Episode] = field(default_factory=list)
    _alerts_changed: asyncio.Event = field(default_factory=asyncio.Event)
    _timings: list[dict[str, float]] = field(default_factory=list)
    unwell_since: dict[str, float] = field(default_factory=dict)
    _told: dict[str, Any] | None = None
    _told_at: float = 0.0

    # --- what comes in ---

    def take(self, message: Message) -> None:
        """Take news in."""
        now = time.monotonic()
        if isinstance(message, Stats):
            self.board.note(message, now)
            if message.stage == "alerts" and self._unwritten.stage_is(message.sender):
                self._show(self._stored)
        elif isinstance(message, CameraState):
            before = self.states.get(message.camera)
            self.states[message.camera] = (message, now)
            if before is None or before[0].state != message.state:
                self.tell()
        elif isinstance(message, Alert):
            news = self._unwritten.take(message, time.time())
            self.opened += news and message.event in ("opened", "escalated")
            self.alert_news += 1
            if not message.episode:  # the others are shown as the store has them
                self._show(self._stored)
            self._alerts_changed.set()

    def sample(self, result: Result) -> None:
        """Take a result in, of which there may be many more."""
        self.recent.note(result, time.monotonic())
        self._timings.append({**result.timings_ms, "latency": result.latency_ms})
        del self._timings[:-_TIMED]

    # --- what it means ---

    def latencies(self) -> dict[str, tuple[float, float]]:
        """Return median and 95th percentile of each stage's part of the latency, milliseconds."""
        names = {name: None for timing in self._timings for name in timing}
        return {
            name: (percentile(values, 0.5), percentile(values, 0.95))
            for name in names
            if (values := sorted(timing[name] for timing in self._timings if name in timing))
        }

    def cameras(self) -> dict[str, dict[str, Any]]:
        """Return how each camera is: its state, for how many seconds, why, and what it shows."""
        told: dict[str, dict[str, Any]] = {}
        for camera in self.config.cameras:
            message, heard = self.states.get(camera, (None, 0.0))
            if message is None:
                told[camera] = {"state": "waiting", "for_s": time.monotonic() - self.started_at, "reason": None}
                continue
            silent_s = time.monotonic() - heard
            state: str = message.state if silent_s < 5 or message.state == "ended" else "offline"
            since_s = max(0.0, time.time() - message.since) if state == message.state else silent_s
            if message.paused and state in ("online", "stalled"):
                state = "paused"
            told[camera] = {
                "state": state,
                "for_s": round(since_s, 1),
                "reason": message.reason,
                "source": message.source,
            }
        return told

    def unwell(self) -> list[str]:
        """Return what is wrong with the processes, in words, once it has been so for some seconds."""
        now = time.monotonic()
        wrong = {row.name: row for row in self.board.rows(now) if row.style}
        self.unwell_since = {name: self.unwell_since.get(name, now - row.waits_s) for name, row in wrong.items()}
        late = (row for name, row in wrong.items() if now - self.unwell_since[name] >= _STALE_AFTER_S)
        return sorted(f"{row.name}: {row.state}" for row in late)

    # --- what browsers are told ---

    def telling(self) -> dict[str, Any]:
        """Return how things stand, as every open page gets it."""
        return {
            "now": round(time.time(), 3),
            "cameras": self.cameras(),
            "alerts": sum(episode.acknowledged_at is None for episode in self.episodes),
            "opened": self.opened,
            "unwell": self.unwell(),
        }

    def tell(self, *, only_changes: bool = False) -> None:
        """Tell every open page how things stand."""
        telling = self.telling()
        shape = {
            **telling,
            "now": None,
            "cameras": {name: (c["state"], c["reason"]) for name, c in telling["cameras"].items()},
            "unwell": [text.split(":")[0] for text in telling["unwell"]],
        }
        now = time.monotonic()
        if only_changes and shape == self._told and now - self._told_at < TOLD_EVERY_S:
            return
        self._told, self._told_at = shape, now
        self.feed.tell(telling)

    async def tick(self) -> None:
        """Once a second: notice browsers that stall, and say what has changed."""
        while True:
            await asyncio.sleep(TICK_S)
            self.feed.count()
            self.streams.count()
            self.unwell()  # since when something is wrong is known also if nobody looks
            if self.feed.watchers:
                self.tell(only_changes=True)

    async def follow_alerts(self) -> None:
        """Keep the open episodes up to date: at each step that is published, and now and then all the same."""
        while True:
            self._alerts_changed.clear()
            try:
                found = await self.desk.ledger(alert_store.episodes, is_open=True, consent_at=time.time())
            except LedgerError as error:
                log.warning("alerts cannot be read at the moment: %s", error)
            else:
                self._unwritten.written(found)
                self._show(found)
            with contextlib.suppress(TimeoutError):
                every_s = OPEN_EVERY_S if self.episodes else ALERTS_EVERY_S
                await asyncio.wait_for(self._alerts_changed.wait(), every_s)

    def _show(self, stored: list[Episode]) -> None:
        """These are open in the store: show them, and what waits to be written there."""
        before, self._stored, self.episodes = self.episodes, stored, [*stored, *self._unwritten.episodes]
        if [_step(one) for one in self.episodes] != [_step(one) for one in before]:
            self.alert_steps += 1
            self.tell()

    async def follow_people(self) -> None:
        """Keep nobody in sight who was forgotten, refuses, or is called otherwise by now, wherever that was done."""
        seen: int | None = None
        while True:
            await asyncio.sleep(PEOPLE_EVERY_S)
            if not self.recent and not self.feed.watchers:
                continue
            try:
                now = await self.desk.store(None, Store.generation)
            except StoreError as error:
                log.warning("people cannot be read at the moment: %s", error)
                continue
            if now != seen:
                self.recent.forget()
                self.alert_news += 1
                self._alerts_changed.set()
            seen = now


def _step(one: Episode) -> Episode:
    """Return an episode without what only grows: whoever shows it must not begin anew because of that."""
    return replace(one, label=None, peak=None, assessed_s=0.0, unassessed_s=0.0, text="")


def user_of(scope: Any) -> User:
    """Return who asks; the guard has let nobody else through."""
    session: Session = scope["mien"]
    return session.user
