"""News as they come, for programs: who listens, what waits for each, and what was left out. No sockets here.

A program that reads too slowly holds up nobody: of each camera's results only the newest waits for it, of everything
else the last ``WAITING`` messages, and it is told how many it has missed. One that has stopped reading is not written
for at all until it reads again.

Belongs to the event loop of the page; ``wants`` may be asked by any thread.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from common.messages import Message, Result
from common.withholding import nameless

TOPICS = ("results", "corrections", "camera", "alerts", "stats")
USUAL = ("results", "corrections", "camera", "alerts")
MOST = 100  # programs at once
WAITING = 256  # messages, results aside
CAMERAS = 1024  # of whose results one may wait; topics come from outside
STALLED_S = 3.0  # a program that takes nothing for so long is not written for
QUIET_S = 5.0  # after so long without news: a sign of life, and a look whether it may still listen


class StreamError(ValueError):
    """A program cannot listen; the text says why."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message for a program: its topic, and its map as JSON. ``missed`` is a topic of ours."""

    topic: str
    text: str

    @property
    def kind(self) -> str:
        return self.topic.partition(".")[0]


class Stream:
    """What one program listens to.

    Attributes:
        kinds: of ``TOPICS``.
        cameras: these only; None for all.
        names: whether it is told who people are.
        missed: messages that it was too slow for, since it was told last.
    """

    def __init__(
        self, kinds: Iterable[str], cameras: frozenset[str] | None, *, rate: float | None, names: bool
    ) -> None:
        self.kinds = frozenset(kinds)
        self.cameras = cameras
        self.names = names
        self.missed = 0
        self._pause_s = 0.0 if rate is None else 1 / rate
        self._next: dict[str, float] = {}
        self._results: dict[str, Item] = {}
        self._others: deque[Item] = deque()
        self._more = asyncio.Event()
        self._ended = False
        self._sending_since: float | None = None

    def listens(self, kind: str, about: str) -> bool:
        """Whether a message of this kind, about this camera or stage, is for this program."""
        return kind in self.kinds and (kind == "stats" or self.cameras is None or about in self.cameras)

    def due(self, camera: str) -> bool:
        """Whether another result of a camera is wanted already."""
        return time.monotonic() >= self._next.get(camera, 0.0)

    def offer(self, item: Item, camera: str | None = None) -> None:
        """Give a message; ``camera`` for results, of which a newer one takes the place of one that still waits."""
        if camera is not None:
            if camera not in self._results and len(self._results) >= CAMERAS:
                self.missed += 1
                return
            self.missed += camera in self._results
            self._results[camera] = item
            if self._pause_s:
                # Counted from when it was due: a rate that does not divide the camera's is kept on average.
                now = time.monotonic()
                if len(self._next) >= CAMERAS:
                    self._next.clear()
                self._next[camera] = max(self._next.get(camera, now), now - self._pause_s) + self._pause_s
        else:
            if len(self._others) >= WAITING:
                self._others.popleft()
                self.missed += 1
            self._others.append(item)
        self._more.set()

    def stalled(self) -> bool:
        """Whether the program has taken nothing for a while."""
        return self._sending_since is not None and time.monotonic() - self._sending_since > STALLED_S

    def end(self) -> None:
        """Say nothing more to it."""
        self._ended = True
        self._more.set()

    async def follow(self, holds: Callable[[], Awaitable[bool]]) -> AsyncIterator[Item | None]:
        """Yield messages as they come, None when there are none for a while, until ``holds`` says no or ``end``."""
        checked = time.monotonic()
        while not self._ended:
            if time.monotonic() - checked >= QUIET_S:
                if not await holds():
                    return
                checked = time.monotonic()
            item = self._pop()
            if item is None:
                self._more.clear()
                try:
                    await asyncio.wait_for(self._more.wait(), QUIET_S)
                    continue
                except TimeoutError:
                    pass  # nothing has come
            self._sending_since = time.monotonic()
            yield item
            self._sending_since = None

    def _pop(self) -> Item | None:
        if self.missed:
            missed, self.missed = self.missed, 0
            return Item("missed", f'{{"missed":{missed}}}')
        if self._others:
            return self._others.popleft()
        for camera in self._results:
            return self._results.pop(camera)
        return None


class Streams:
    """All programs that listen."""

    def __init__(self) -> None:
        self.open: set[Stream] = set()
        self._results_of: frozenset[str | None] = frozenset()

    def join(self, *, topics: str, cameras: str, rate: float | None, names: bool) -> Stream:
        """Return a new program's stream; topics and cameras with commas between, none for the usual ones and for all.

        Raises:
            StreamError: an unknown topic, or too many programs already.
        """
        kinds = _parts(topics) or USUAL
        for kind in kinds:
            if kind not in TOPICS:
                raise StreamError(f"there is no topic {kind[:64]!r} here; there are {', '.join(TOPICS)}")
        if len(self.open) >= MOST:
            raise StreamError(f"{MOST} programs are listening already: let one end first")
        stream = Stream(kinds, frozenset(_parts(cameras)) or None, rate=rate, names=names)
        self.open.add(stream)
        self.count()
        return stream

    def leave(self, stream: Stream) -> None:
        """A program has gone."""
        self.open.discard(stream)
        self.count()

    def count(self) -> None:
        """Note who has time; called now and then."""
        wanted: set[str | None] = set()
        for stream in self.open:
            if "results" in stream.kinds and not stream.stalled():
                wanted |= stream.cameras or {None}
        self._results_of = frozenset(wanted)

    @property
    def reads_results(self) -> bool:
        """Whether anybody wants results."""
        return bool(self._results_of)

    def wants(self, camera: str) -> bool:
        """Whether anybody wants this camera's results."""
        wanted = self._results_of
        return None in wanted or camera in wanted

    def take(self, topic: str, message: Message) -> None:
        """Give a message to everybody whom it is for; made into JSON once, and only if there is somebody."""
        kind, _, about = topic.partition(".")
        items: dict[bool, Item] = {}
        camera = about if isinstance(message, Result) else None
        for stream in self.open:
            if not stream.listens(kind, about) or (camera is not None and not stream.due(camera)):
                continue
            if stream.stalled():
                stream.missed += 1
                continue
            if stream.names not in items:
                told = message if stream.names else nameless(message)
                items[stream.names] = Item(topic, told.model_dump_json(by_alias=True))
            stream.offer(items[stream.names], camera)

    def end(self) -> None:
        """End all of them: the page ends."""
        for stream in list(self.open):
            stream.end()


def as_event(item: Item | None) -> str:
    """Return a message as a Server-Sent Event; a comment for None."""
    return ":\n\n" if item is None else f"event: {item.kind}\ndata: {item.text}\n\n"


def as_text(item: Item) -> str:
    """Return a message as one JSON object: its topic, and its map."""
    return f'{{"topic":{json.dumps(item.topic)},"message":{item.text}}}'


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")[:256] if part.strip())
