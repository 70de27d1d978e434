"""Previews on their way to browsers: each browser gets the newest picture that it has time for, and holds up nobody.

A browser says what it watches and answers each picture that it has drawn. At most two unanswered pictures of a camera
are on their way to it; what comes meanwhile replaces what waits. A browser that stops answering is not waited for: its
wish counts no longer, so that nothing is encoded for it, until it answers again.

Belongs to the event loop of the page; ``wanted`` may be read by any thread. No sockets here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from common import words
from common.messages import Face, Result
from common.watching import Seen

IN_FLIGHT = 2
STALLED_S = 3.0  # a browser that answers nothing for so long has no time


class Watcher:
    """One browser's view: what it wants, what is on its way to it, and what waits."""

    def __init__(self) -> None:
        self.cameras: frozenset[str] = frozenset()
        self.sent = 0
        self.replaced = 0  # pictures that a newer one took the place of
        self._waiting: dict[str, bytes] = {}
        self._flying: dict[str, int] = {}
        self._told: str | None = None
        self._answered_at = time.monotonic()
        self._more = asyncio.Event()

    def offer(self, camera: str, picture: bytes) -> None:
        """A picture has come; it takes the place of one that still waits."""
        if camera not in self.cameras:
            return
        self.replaced += camera in self._waiting
        self._waiting[camera] = picture
        self._more.set()

    def tell(self, text: str) -> None:
        """Something else is to be said, as JSON; only the newest matters."""
        self._told = text
        self._more.set()

    def answered(self, camera: str) -> None:
        """The browser has drawn a picture."""
        self._answered_at = time.monotonic()
        self._flying[camera] = max(0, self._flying.get(camera, 0) - 1)
        self._more.set()

    def stalled(self) -> bool:
        """Whether the browser has not answered for a while although pictures went out to it."""
        busy = any(count >= IN_FLIGHT for count in self._flying.values())
        return busy and time.monotonic() - self._answered_at > STALLED_S

    async def next(self) -> bytes | str:
        """Return what is to be sent next: a picture, or JSON. Waits until there is something."""
        while True:
            if self._told is not None:
                text, self._told = self._told, None
                return text
            for camera in list(self._waiting):
                if camera not in self.cameras:
                    del self._waiting[camera]
                elif self._flying.get(camera, 0) < IN_FLIGHT:
                    if not any(self._flying.values()):
                        self._answered_at = time.monotonic()
                    self._flying[camera] = self._flying.get(camera, 0) + 1
                    self.sent += 1
                    return self._waiting.pop(camera)
            self._more.clear()
            await self._more.wait()


class Feed:
    """All browsers that watch.

    Attributes:
        wanted: cameras that somebody watches and has time for.
    """

    def __init__(self, cameras: Iterable[str]) -> None:
        self.cameras = tuple(cameras)
        self.wanted: frozenset[str] = frozenset()
        self.watchers: set[Watcher] = set()

    def join(self) -> Watcher:
        """Return a new browser's view."""
        watcher = Watcher()
        self.watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """A browser has gone."""
        self.watchers.discard(watcher)
        self.count()

    def watch(self, watcher: Watcher, cameras: Iterable[Any]) -> None:
        """A browser says which cameras it watches; unknown ones are left out."""
        watcher.cameras = frozenset(camera for camera in self.cameras if camera in set(map(str, cameras)))
        self.count()

    def count(self) -> None:
        """Find out anew which cameras are wanted; called now and then, for browsers stall without a word."""
        self.wanted = frozenset(
            camera for watcher in self.watchers if not watcher.stalled() for camera in watcher.cameras
        )

    def publish(self, camera: str, picture: bytes) -> None:
        """Hand a picture to everybody who watches its camera: the same bytes for all."""
        for watcher in self.watchers:
            watcher.offer(camera, picture)

    def tell(self, what: dict[str, Any]) -> None:
        """Say something to everybody who watches."""
        text = json.dumps(what, ensure_ascii=False)
        for watcher in self.watchers:
            watcher.tell(text)


def packed(seen: Seen) -> bytes:
    """Return a preview as browsers get it: the length of the JSON (4 bytes, little-endian), the JSON, the JPEG."""
    result = seen.preview.result
    text = json.dumps(described(result, analysed=seen.preview.analysed), ensure_ascii=False, separators=(",", ":"))
    head = text.encode()
    return b"".join((len(head).to_bytes(4, "little"), head, seen.jpeg))


def described(result: Result, *, analysed: bool) -> dict[str, Any]:
    """Return what a browser needs to know of a result."""
    return {
        "camera": result.camera,
        "seq": result.seq,
        "at": result.captured_at,
        "width": result.width,
        "height": result.height,
        "analysed": analysed or result.quiet,
        "latency": None if result.quiet else round(result.latency_ms),
        "selected": result.selected,
        "enrolling": result.enrolling.model_dump() if result.enrolling else None,
        "faces": [_face(face) for face in result.faces],
    }


def _face(face: Face) -> dict[str, Any]:
    identity, expression = face.identity, face.expression
    shares = expression.smoothed or expression.probabilities
    return {
        "track": face.track,
        "box": [round(side, 1) for side in face.box],
        "who": identity.status,
        "name": words.who(identity) if identity.status == "known" else None,
        "person": identity.person,
        "number": identity.number,
        "looks": expression.status,
        "reason": expression.reason,
        "label": expression.label,
        "share": expression.confidence,
        "shares": [round(value, 3) for value in shares.model_dump().values()] if shares else None,
    }
