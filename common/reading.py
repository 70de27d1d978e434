"""The thread that opens and reads one source for a ``Reader``."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from common.freeze import FreezeWatch
from common.pacer import Pacer
from common.sources import Picture, Source, SourceError

if TYPE_CHECKING:
    from common.reader import Reader

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0  # before opening a lost source again
GOOD_AFTER_S = 10.0  # pictures for as long: the next loss starts with the first delay again
QUEUE_SIZE = 2  # pictures, where none may be lost


class Taken(NamedTuple):
    """A picture as it is handed over: what it is, when it was captured, and whether it stands alone."""

    picture: Picture
    captured_ns: int  # monotonic
    captured_at: float  # unix seconds
    still: bool  # of a source of independent pictures, of which none may be lost


class ReadingThread(threading.Thread):
    """Opens, reads and paces one source, and opens it again when it is lost, for as long as the reader wants it.

    What it knows is guarded by the reader's lock. A daemon: a call that hangs must not keep the process alive.
    """

    def __init__(self, reader: Reader, spec: str, source: Source) -> None:
        super().__init__(name=f"reader of {source.description}", daemon=True)
        self.reader = reader
        self.spec = spec
        self.source = source
        self.began = time.monotonic()
        self.last_picture = self.online_since = self.began
        self.seen = False  # it has given a picture
        self.failure: str | None = None  # why the last attempt failed
        self.over = False  # nothing more will come
        self.phase: Literal["opening", "reading", "waiting"] = "waiting"
        self._phase_since = self.began
        self._good_since = self.began
        self._delay_s = FIRST_DELAY_S
        self._freeze = FreezeWatch(None if source.may_stand_still else reader.frozen_after_s)
        self._media_s = 0.0  # of the last picture
        self._ahead_s: float | None = 0.0  # of the source's clock; None: begins where a predecessor's picture was
        self._pacer: Pacer | None = None

    @property
    def newest_wins(self) -> bool:
        """Pictures not taken in time are dropped."""
        return not self.reader.every_frame and not self.source.still

    def blocked_s(self, now_s: float) -> float:
        """For how long a call into the source has not returned."""
        return 0.0 if self.phase == "waiting" or self.over else now_s - self._phase_since

    def inherit(self, predecessor: ReadingThread, reason: str) -> None:
        """Take over from a thread that hangs: same source, same trouble."""
        self.failure = reason
        self.seen, self.last_picture = predecessor.seen, predecessor.last_picture
        self._delay_s = predecessor._delay_s
        self._media_s = predecessor._media_s
        self._ahead_s = None if predecessor.seen else 0.0
        self._freeze = predecessor._freeze

    def run(self) -> None:
        """Until the end of the source, or nobody wants it any more."""
        while self._enter("opening"):
            try:
                self.source.open()
                self._read_all()
                return
            except SourceError as error:
                reason = str(error)
            except Exception as error:
                log.exception("reading %s failed", self.source.description)
                reason = f"{self.source.description}: {type(error).__name__}: {error}"
            finally:
                self.source.close()
            if not self._try_again(reason):
                return

    def _wanted(self) -> bool:
        return self.reader.wants(self)

    def _enter(self, phase: Literal["opening", "reading", "waiting"]) -> bool:
        with self.reader.changed:
            self.phase, self._phase_since = phase, time.monotonic()
            return self._wanted()

    def _read_all(self) -> None:
        now = time.monotonic()
        self._freeze.restart(now)
        self._good_since = now
        self._pacer = None
        while self._enter("reading"):
            began = time.thread_time()
            picture = self.source.read()
            self.reader.read_cpu_s += time.thread_time() - began
            stamp = (time.monotonic_ns(), time.time())
            if not self._enter("waiting"):
                return
            if picture is None:
                with self.reader.changed:
                    self.over = True
                    self.reader.changed.notify_all()
                return
            if self.source.live:
                look = self._freeze.look(picture.pixels, stamp[0] / 1e9)
                if look == "lost":
                    seconds = f"{self.reader.frozen_after_s:g} s"
                    raise SourceError(f"{self.source.description} is frozen: the same picture for {seconds}")
                if look == "frozen":
                    continue
                picture = self._in_one_time(picture, stamp[0] / 1e9)
            elif self.newest_wins:
                if not self._wait_until_due(picture):
                    continue
                stamp = (time.monotonic_ns(), time.time())
            self._deliver(picture, stamp)

    def _in_one_time(self, picture: Picture, now_s: float) -> Picture:
        """A live picture in the time of the pictures before, also where another thread has taken over."""
        if self._ahead_s is None:
            passed_s = max(0.0, now_s - self.last_picture)
            self._ahead_s = self._media_s + passed_s - picture.media_time_s
        self._media_s = picture.media_time_s + self._ahead_s
        return replace(picture, media_time_s=self._media_s) if self._ahead_s else picture

    def _wait_until_due(self, picture: Picture) -> bool:
        """Wait for the moment of a file's picture. False: it is too late for it."""
        with self.reader.changed:
            due = None
            while self._wanted():
                now = time.monotonic()
                if self.reader.paused and self.seen:  # a source that is new shows that it works
                    self._pacer = due = None
                    self.reader.changed.wait()
                    continue
                if due is None:
                    self._pacer = self._pacer or Pacer(1 / (self.source.frame_rate or 25.0))
                    gaps = self._pacer.gaps
                    due = self._pacer.due(picture.media_time_s, now)
                    if self._pacer.gaps == 1 and not gaps:
                        self.reader.notify(f"{self.source.description} has holes in its time: they are passed over")
                    if due is None:
                        self.reader.skipped += 1
                        return False
                if due <= now:
                    return True
                self.reader.changed.wait(due - now)
        return False

    def _deliver(self, picture: Picture, stamp: tuple[int, float]) -> None:
        reader = self.reader
        with reader.changed:
            if not self._wanted():
                return
            reader.promote(self)
            now = time.monotonic()
            if self.failure or not self.seen or now - self.last_picture > reader.lost_after_s:
                self.online_since = self._good_since = now
            self.last_picture, self.seen, self.failure = now, True, None
            if self.newest_wins:
                reader.skipped += len(reader.queue)
                reader.queue.clear()
                if reader.paused:
                    reader.skipped += 1
                    return
            while len(reader.queue) >= QUEUE_SIZE:
                reader.changed.wait()
                if not self._wanted():
                    return
            reader.queue.append(Taken(picture, *stamp, self.source.still))
            reader.pictures += 1
            reader.changed.notify_all()

    def _try_again(self, reason: str) -> bool:
        """After a failure: wait for the time to open the source again. False: do not."""
        with self.reader.changed:
            if not self._wanted() or self.reader.reject(self, reason):
                return False
            self.failure = reason
            self.reader.changed.notify_all()
            if not self.source.live:
                self.over = True
                return False
            if self.seen and self.last_picture - self._good_since >= GOOD_AFTER_S:
                self._delay_s = FIRST_DELAY_S
            deadline = time.monotonic() + self._delay_s
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            self.phase = "waiting"
            while (remaining_s := deadline - time.monotonic()) > 0 and self._wanted():
                self.reader.changed.wait(remaining_s)
            self.reader.reconnects += 1
            return self._wanted()
