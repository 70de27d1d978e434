"""A thread that owns a source, so that nobody else ever waits for a camera, a disk or a network."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from common.reading import ReadingThread, Taken
from common.sources import Source, SourceError, open_source

log = logging.getLogger(__name__)

LOST_AFTER_S = 2.0  # a live source that gave nothing for as long is offline
FROZEN_AFTER_S = 5.0
READ_LIMIT_S, OPEN_LIMIT_S = 10.0, 30.0  # a call that blocks for longer is given up, together with its thread
SWITCH_LIMIT_S = 10.0  # a new live source must show a picture by then
SWITCH_LIMIT_FILE_S = 120.0  # the demo's media may have to be fetched and rendered first
MAX_STUCK = 3  # threads given up that still hang; no more are started meanwhile


class MakeSource(Protocol):
    """Makes a source from what a person wrote, like ``open_source``."""

    def __call__(self, spec: str, *, loop: bool | None, notify: Callable[[str], None]) -> Source: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderState:
    """How a source is doing.

    Attributes:
        state: online; offline: a live source gives nothing, it is tried again; stalled: a file that cannot be read now;
            ended: nothing more will come.
        since: on the monotonic clock. Of offline and stalled: when the last picture came.
        reason: why it is not online. When ended: None at the file's end, else what went wrong.
        source: its description, for people.
        pictures: handed over or ready to be.
        skipped: read, but never handed over because a newer one was there or their time was over.
        reconnects: times the source was opened again.
        stuck: threads given up that still hang in a read.
        worn_out: so many that no other attempt is made while they hang: only another process could open the source.
    """

    state: Literal["online", "offline", "stalled", "ended"]
    since: float
    reason: str | None
    source: str
    live: bool
    paused: bool
    pictures: int
    skipped: int
    reconnects: int
    stuck: int
    worn_out: bool


class Reader:
    """Reads one source in a thread and hands over its pictures.

    Live (default), the newest picture wins, files are played at their own speed, and what was not taken in time is
    counted as skipped. With ``every_frame``, and for independent images always, no picture is lost: the source waits.
    A lost live source is opened again with growing delays. All methods may be called from any thread.

    Args:
        spec: as for ``open_source``.
        every_frame: lose nothing, wait for nothing.
        loop: begin again at the end; None: the demo scenes do, but not with ``every_frame``.
        lost_after_s: silence that makes a live source offline.
        frozen_after_s: the same picture for as long counts as lost; None: never.
        notify: told of skipped images and the like; called from the reading thread.
        make: how to make a source.

    Raises:
        SourceError: ``spec`` is not a source.
    """

    def __init__(
        self,
        spec: str,
        *,
        every_frame: bool = False,
        loop: bool | None = None,
        lost_after_s: float = LOST_AFTER_S,
        frozen_after_s: float | None = FROZEN_AFTER_S,
        notify: Callable[[str], None] = log.warning,
        make: MakeSource = open_source,
    ) -> None:
        self.every_frame = every_frame
        self.lost_after_s = lost_after_s
        self.frozen_after_s = frozen_after_s
        self._loop = False if every_frame and loop is None else loop
        self.notify = notify
        self._make = make
        self._closed = False
        self._stuck: list[ReadingThread] = []
        self._worn_out = False
        self._candidate: ReadingThread | None = None
        self._switch: Future[str] | None = None
        # Shared with the reading threads; the condition guards all of it.
        self.changed = threading.Condition()
        self.queue: deque[Taken] = deque()
        self.paused = False
        self.pictures = self.skipped = self.reconnects = 0
        self.read_cpu_s = 0.0  # processor time in the source itself: decoding, mostly
        self.switches = 0  # done so far
        self.taken_after = 0  # … when the picture that ``take`` gave last was taken: of which source it is
        self._current = self._worker(spec)

    def _worker(self, spec: str) -> ReadingThread:
        return ReadingThread(self, spec, self._make(spec, loop=self._loop, notify=self.notify))

    def start(self) -> None:
        """Begin to read. Opening happens in the thread; how it went is in ``state()``."""
        self._current.start()

    def take(self, timeout_s: float) -> Taken | None:
        """The next picture (live: the newest); None after ``timeout_s``, or at once when nothing more will come.

        Captured is when a file's picture was due, else when the source gave it.
        """
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while True:
                self._look()
                if self.queue and not self.paused:
                    taken = self.queue.popleft()
                    self.taken_after = self.switches
                    self.changed.notify_all()
                    return taken
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or self._closed or (self._current.over and not self._candidate):
                    return None
                self.changed.wait(min(remaining_s, 0.25))

    def state(self) -> ReaderState:
        """How the source is doing now, even while its thread hangs in a read."""
        with self.changed:
            self._look()
            now, worker = time.monotonic(), self._current
            state: Literal["online", "offline", "stalled", "ended"] = "online"
            since, reason = worker.online_since, None
            silent_s = now - worker.last_picture
            if self._closed:
                state, since, reason = "ended", worker.last_picture, "closed"
            elif worker.over:
                # What is still queued comes before the end.
                state = "online" if self.queue and not worker.failure else "ended"
                since, reason = worker.last_picture, worker.failure
            elif worker.source.live:
                if worker.failure or not worker.seen or silent_s > self.lost_after_s:
                    state, since = "offline", worker.last_picture
                    reason = worker.failure or f"no picture for {silent_s:.1f} s" if worker.seen else worker.failure
                    reason = reason or "connecting"
            elif worker.blocked_s(now) > self.lost_after_s:
                state, since, reason = "stalled", worker.last_picture, f"no picture for {silent_s:.1f} s"
            return ReaderState(
                state=state,
                since=since,
                reason=reason,
                source=worker.source.description,
                live=worker.source.live,
                paused=self.paused,
                pictures=self.pictures,
                skipped=self.skipped,
                reconnects=self.reconnects,
                stuck=len(self._stuck),
                worn_out=self._worn_out,
            )

    def switch(self, spec: str) -> Future[str]:
        """Change to another source. The old one goes on until the new one has shown its first picture.

        The future gets the new description, or SourceError: then the old source stays. A later switch replaces one
        that is still under way.
        """
        done: Future[str] = Future()
        with self.changed:
            self._fail_switch("another change of source came before this one was done")
            current = self._current
            works = current.seen and not current.failure and not current.over
            if spec == current.spec and current.source.live and works:
                done.set_result(current.source.description)
                return done
            try:
                self._candidate = self._worker(spec)
            except SourceError as error:
                done.set_exception(error)
                return done
            self._switch = done
            self._candidate.start()
        return done

    def pause(self) -> None:
        """Hand over nothing for now. Files stop; live sources go on, unseen, so that the next picture is fresh."""
        with self.changed:
            self.paused = True
            if self._current.newest_wins:
                self.queue.clear()

    def resume(self) -> None:
        """Go on after ``pause``."""
        with self.changed:
            self.paused = False
            self.changed.notify_all()

    def close(self) -> None:
        """Stop. A thread that hangs in a read is left behind; it ends with the process."""
        with self.changed:
            self._closed = True
            workers = [worker for worker in (self._current, self._candidate) if worker and worker.is_alive()]
            self._fail_switch("closed")
            self.queue.clear()
            self.changed.notify_all()
        deadline = time.monotonic() + 1.0
        for worker in workers:
            worker.join(timeout=max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Everything below is called with the lock held, the first three by the reading threads.

    def wants(self, worker: ReadingThread) -> bool:
        """Whether this thread is still to go on."""
        return not self._closed and (worker is self._current or worker is self._candidate)

    def promote(self, worker: ReadingThread) -> None:
        """A thread has a picture. If it is the new source's first, the new source replaces the old one."""
        if worker is not self._candidate:
            return
        self._stuck.append(self._current)  # until it has noticed
        self._current, self._candidate = worker, None
        self.switches += 1
        self.queue.clear()
        if self._switch:
            self._switch.set_result(worker.source.description)
        self._switch = None
        self.changed.notify_all()

    def reject(self, worker: ReadingThread, reason: str) -> bool:
        """A thread could not open its source. True: it was the new source, and the old one stays."""
        if worker is not self._candidate:
            return False
        self._fail_switch(reason)
        return True

    def _look(self) -> None:
        """Give up what hangs. Here, because a thread that hangs cannot watch itself."""
        now = time.monotonic()
        self._worn_out = False
        self._stuck = [worker for worker in self._stuck if worker.is_alive()]
        candidate, current = self._candidate, self._current
        if candidate:
            limit_s = SWITCH_LIMIT_S if candidate.source.live else SWITCH_LIMIT_FILE_S
            if now - candidate.began > limit_s:
                self._fail_switch(f"{candidate.source.description} gave no picture within {limit_s:.0f} s")
        limit_s = OPEN_LIMIT_S if current.phase == "opening" else READ_LIMIT_S
        if current.source.live and not current.over and current.blocked_s(now) > limit_s:
            if len(self._stuck) >= MAX_STUCK:
                current.failure = f"{current.source.description} hangs, and so did {MAX_STUCK} attempts before"
                self._worn_out = self._candidate is None  # else another source may be shown in a moment
                return
            self._stuck.append(current)
            self._current = self._worker(current.spec)
            self._current.inherit(current, f"{current.source.description} hung for {limit_s:.0f} s and is opened again")
            self.reconnects += 1
            self._current.start()

    def _fail_switch(self, reason: str) -> None:
        if self._candidate and self._candidate.is_alive():
            self._stuck.append(self._candidate)
        self._candidate = None
        if self._switch and not self._switch.done():
            self._switch.set_exception(SourceError(reason))
        self._switch = None
