"""The capture stage: one camera's source in, frames with their time out."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from common import clock, jpeg
from common.child import GOOD_AFTER_S
from common.endpoints import remote
from common.lifeline import Lifeline
from common.messages import CameraState, Control, EndOfSource, Frame, Message, Result, Slot, pack
from common.reader import Reader, ReaderState
from common.reading import Taken
from common.ring import RingWriter
from common.rundir import held, hold, let_go
from common.settings import Config
from common.sources import SourceError
from common.sources.spec import parse_source
from common.stage import Answer, ControlError, Stage, StageError, WornOut, main
from common.transport import Socket, opened

STATE_EVERY_S = 1.0  # the camera's state is said again, for those who subscribe late
END_EVERY_S = 1.0  # so is its end
ROUND_TRIP_EVERY_S = 0.2
PAUSED_MS = 500.0  # to go on is asked for by a message, which ends the wait
LEAST_LIFE_S = 1.2 * GOOD_AFTER_S  # of one that asks to be replaced: a camera may hang for days, and that is no failure
_ROUND_TRIPS = 256


class Capture(Stage):
    """Reads one camera, stamps time, and hands frames to the conductor. Never waits for anybody, unless told to."""

    name: ClassVar[str] = "capture"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        self._camera = camera or next(iter(config.cameras))
        self._supervised = False
        super().__init__(config, camera=self._camera)

    def run(self, lifeline: Lifeline) -> None:
        self._supervised = lifeline.supervised
        super().run(lifeline)

    def topics(self) -> tuple[str, ...]:
        return (f"samples.{self._camera}",)  # its own results come back: the true round trip

    def sampled(self) -> Mapping[str, float]:
        return {"samples.": ROUND_TRIP_EVERY_S}

    def open(self) -> None:
        cv2.setNumThreads(1)
        settings = self.config.cameras[self._camera]
        self._frames: Socket | None = None
        self._reader: Reader | None = None
        self._unsent: tuple[Frame, list[Any]] | None = None
        self._switching: tuple[str, str, Future[str]] | None = None
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._said: tuple[str, str, bool] | None = None
        self._said_at = 0.0
        self._end_sent = False
        self._source = self._chosen() or settings.source
        self._encoding = encoding(self.config, self._camera)
        self._switches = 0
        self._next_due = 0.0
        self._idle = False
        self._ring = RingWriter(self.config, self._camera)
        try:
            self._reader = Reader(
                self._source,
                every_frame=self.config.every_frame,
                loop=None if self.config.loop else False,
                frozen_after_s=settings.frozen_after_s,
                notify=self.log.warning,
            )
        except SourceError as error:
            raise StageError(f"cameras.{self._camera}.source: {error}") from error
        if self._source != settings.source:
            self.log.warning(
                "it shows %s, as somebody chose before this process was started", self._reader.state().source
            )
        if self._held("paused") is not None:
            self._reader.pause()
            self.log.warning("still paused, as before this process was started, until somebody resumes it")
        self._began = time.monotonic()
        self._begin_run()
        address = self.config.endpoint("frames")
        self._frames = opened("frames", address, "push", patient=self.config.every_frame)
        self._reader.start()

    def handle(self, ready: set[Socket]) -> None:
        assert self._reader is not None
        if self._unsent is not None:
            self._send()
        if self._unsent is None or not self._keeps(self._unsent[0].still):
            self._take()
        state = self._reader.state()
        self._settle_switch()
        self._say_state(state)
        if state.state == "ended" and self._unsent is None and time.monotonic() >= self._next_end:
            self._send_end()
        if state.worn_out and self._supervised and time.monotonic() - self._began >= LEAST_LIFE_S:
            raise WornOut(f"{state.reason}: only a fresh process can try again")

    def wait_ms(self) -> float:
        # Waiting is done for the next picture, in handle; but while there is none to come, here.
        assert self._reader is not None
        if self._reader.paused:
            return PAUSED_MS
        return 50.0 if self._idle and self._end_sent else 0.0

    def close(self) -> None:
        if getattr(self, "_reader", None) is not None:
            self._reader.close()  # type: ignore[union-attr]
        if hasattr(self, "_ring"):
            self._ring.close()
        if getattr(self, "_frames", None) is not None:
            self._frames.close()  # type: ignore[union-attr]

    def control(self, request: Control) -> Answer | None:
        assert self._reader is not None
        several = len(self.config.cameras) > 1
        if several and request.args.get("camera") is None and request.do in ("pause", "resume", "source"):
            # Every camera hears it: one that was not meant must not change what it shows, or stop.
            raise ControlError(f"which camera is meant? There are {', '.join(self.config.cameras)}")
        if request.do in ("pause", "resume"):
            self._pause(request.do == "pause")
            return {"camera": self._camera, "paused": self._reader.paused}
        if request.do != "source":
            return super().control(request)
        wanted = request.args.get("source")
        if not isinstance(wanted, str):
            raise ControlError("say which source: args.source is a text such as webcam, screen, a path or an address")
        try:
            parse_source(wanted)
            switch = self._reader.switch(wanted)
        except SourceError as error:
            raise ControlError(str(error)) from error
        self._settle_switch()  # the change before this one is decided by now: done, or given up for this one
        self._switching = (request.request, wanted, switch)
        return None

    def on_news(self, topic: str, message: Message) -> None:
        if isinstance(message, Result) and message.run == self._run:
            sent = self._sent_at.pop(message.seq, None)
            if sent is not None:
                self.meter.worked((time.monotonic() - sent) * 1e3)

    def detail(self) -> dict[str, float | str]:
        assert self._reader is not None
        state = self._reader.state()
        return {
            "camera": self._camera,
            "source": state.source,
            "skipped": state.skipped,
            "reconnects": state.reconnects,
            "source_cpu_s": self._reader.read_cpu_s,
        }

    # --- inside ---

    def _begin_run(self) -> None:
        """Numbers begin anew; the scene's number tells the conductor whether the same place is still to be seen."""
        self._run = max(int(time.time() * 1000), getattr(self, "_run", 0) + 1)
        self._seq = 0
        self._end_sent = False
        self._next_end = 0.0
        self._scene = zlib.crc32(self._source.encode())

    def _keeps(self, still: bool) -> bool:
        """Whether a picture may not be lost; ``still``: it is of a source of independent ones."""
        return self.config.every_frame or still

    def _take(self) -> None:
        assert self._reader is not None
        taken = self._reader.take(0.0 if self._reader.paused else 0.05)
        self._idle = taken is None
        if taken is None:
            return
        if self._reader.taken_after != self._switches:
            self._switches = self._reader.taken_after
            self._settle_switch()
            self._unsent = None
            self._begin_run()
        rate = self.config.cameras[self._camera].max_rate
        if rate is not None and not self._keeps(taken.still):
            now = taken.captured_ns / 1e9
            if now < self._next_due - 0.2 / rate:
                self.meter.dropped += 1
                return
            self._next_due = max(self._next_due + 1 / rate, now)
        self.meter.taken += 1
        if self._unsent is not None:
            self.meter.dropped += 1  # newest wins
        self._unsent = self._framed(taken)
        self._send()

    def _framed(self, taken: Taken) -> tuple[Frame, list[Any]]:
        picture = taken.picture
        settings = self.config.cameras[self._camera]
        height, width = picture.pixels.shape[:2]
        slot: Slot | None = None
        if self._encoding == "jpeg":
            blobs: list[Any] = [jpeg.encode(picture.pixels, settings.jpeg_quality)]
        else:
            pixels = np.ascontiguousarray(picture.pixels)
            slot = None if self._keeps(taken.still) else self._ring.put(pixels)
            blobs = [] if slot else [pixels]
        frame = Frame(
            sender=self.instance,
            camera=self._camera,
            run=self._run,
            seq=self._seq,
            captured_at=taken.captured_at,
            width=width,
            height=height,
            encoding=self._encoding,
            age_ms=max(0.0, (time.monotonic_ns() - taken.captured_ns) / 1e6),
            clock=clock.reading(taken.captured_ns),
            media_time_s=max(0.0, picture.media_time_s),
            still=taken.still,
            every_frame=self.config.every_frame,
            name=picture.name,
            scene=self._scene,
            slot=slot,
        )
        self._seq += 1
        return frame, blobs

    def _send(self) -> None:
        assert self._frames is not None and self._unsent is not None
        frame, blobs = self._unsent
        timeout_ms = 100 if self._keeps(frame.still) else 5
        if self._frames.send([frame.kind.encode(), pack(frame), *blobs], timeout_ms=timeout_ms):
            self._unsent = None
            self.meter.given += 1
            self._sent_at[frame.seq] = time.monotonic() - frame.age_ms / 1e3
            while len(self._sent_at) > _ROUND_TRIPS:
                self._sent_at.popitem(last=False)

    def _send_end(self) -> None:
        assert self._frames is not None
        end = EndOfSource(sender=self.instance, camera=self._camera, run=self._run, frames=self._seq)
        if self._frames.send([end.kind.encode(), pack(end)], timeout_ms=100):
            self._end_sent = True
            self._next_end = time.monotonic() + END_EVERY_S  # a conductor that was started anew has to hear it, too

    def _settle_switch(self) -> None:
        if self._switching is None or not self._switching[2].done():
            return
        request, wanted, switch = self._switching
        self._switching = None
        error = switch.exception()
        if error is not None:
            self.answer(request, error=str(error))
            return
        self._source = wanted
        self._remember(wanted)
        self.log.info("source is now %s", switch.result())
        result: Answer = {"camera": self._camera, "source": switch.result()}
        self.answer(request, result)

    def _chosen(self) -> str | None:
        """What somebody has chosen instead of the configured source, before this process was started."""
        try:
            chosen = self._held("source")
            if chosen is None:
                return None
            source, instead_of = json.loads(chosen)
            parse_source(source)
        except (ValueError, TypeError, SourceError) as error:
            self.log.warning("the source that was chosen cannot be used any more, going back: %s", error)
            return None
        # One that was configured since then is what somebody wants now.
        return str(source) if instead_of == self.config.cameras[self._camera].source else None

    def _held(self, what: str) -> str | None:
        try:
            return held(self.config, f"{what}-{self._camera}")
        except OSError as error:
            self.log.warning("it cannot be told whether this camera was paused or given another source: %s", error)
            return None

    def _pause(self, paused: bool) -> None:
        assert self._reader is not None
        (self._reader.pause if paused else self._reader.resume)()
        name = f"paused-{self._camera}"
        try:
            if paused:
                hold(self.config, name, "")
            else:
                let_go(self.config, name)
        except OSError as error:
            self.log.warning("a restart of this stage will not know whether it is paused: %s", error)

    def _remember(self, source: str) -> None:
        chosen = json.dumps([source, self.config.cameras[self._camera].source])
        try:
            hold(self.config, f"source-{self._camera}", chosen)
        except OSError as error:
            self.log.warning("after a restart of this stage the source will be the configured one again: %s", error)

    def _say_state(self, state: ReaderState) -> None:
        now = time.monotonic()
        word = state.state
        said = (word, state.source, state.paused)
        if said == self._said and now - self._said_at < STATE_EVERY_S:
            return
        if self._said is None or word != self._said[0]:
            text = f"{state.source}: {word}" + (f" ({state.reason})" if state.reason else "")
            # Where nothing may be lost, a file that takes long to read is only slow.
            lost = word == "offline" or (word == "stalled" and not self.config.every_frame)
            failed = word == "ended" and state.reason not in (None, "closed")
            (self.log.warning if lost or failed else self.log.info)("%s", text)
        self._said, self._said_at = said, now
        message = CameraState(
            sender=self.instance,
            camera=self._camera,
            state=word,
            since=time.time() - max(0.0, now - state.since),
            reason=state.reason,
            source=state.source[:1000],
            paused=state.paused,
        )
        self.news.publish(message, self._camera)


def encoding(config: Config, camera: str) -> Literal["raw", "jpeg"]:
    """Return how a camera's pictures travel: they go on to workers and to preview as they came to the conductor."""
    wanted = config.cameras[camera].encoding
    if wanted != "auto":
        return wanted
    return "jpeg" if any(remote(config.endpoint(channel)) for channel in ("frames", "jobs", "pictures")) else "raw"


if __name__ == "__main__":
    sys.exit(main(Capture))
