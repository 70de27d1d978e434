"""The conductor: the one process that remembers. Frames and findings in; jobs, results and pictures out."""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from common.conductor import Conductor as Thinking
from common.keeper import Keeper
from common.line import Flight
from common.messages import (
    Control,
    Correction,
    DetectionFinding,
    EndOfSource,
    ExpressionFinding,
    Frame,
    IdentityFinding,
    Message,
    MessageError,
    Picture,
    Ready,
    Result,
    Sample,
    kind_of,
    pack,
    unpack,
)
from common.motion import Motion
from common.news import Complaint
from common.people import PeopleError, check_fields, checked_name
from common.recall import Enrolment, Recall
from common.recorded import RecordedConductor
from common.recorder import FAREWELL, TOPIC
from common.ring import RingReader
from common.stage import Answer, ControlError, Stage, StageError, main
from common.store import StoreError
from common.tape import RecordedRecall, Tape
from common.trackids import TrackIds
from common.transport import Socket, opened
from common.worker import job_topic

TICK_S = 0.02
SAMPLE_S = 0.1
FAREWELL_S = 1.0  # for the end of a recording to get out
IDLE_TICK_S = 0.5  # with nothing in the air; people may have been changed
SHOWN_S = 0.15  # preview has looked at a picture by then …
MOST_SHOWN = 4  # … and at the newest ones only: what is held cannot be written into by a fast camera
ARCHIVE_WAITING = 16  # results that wait for a slow archive before no more frames are taken in
MOST_TOLD, TOLD_WITHIN_S = 200, 10.0  # lines about workers that come and go
RECORDED_EVERY_S = 0.1
RECORDING_WAITING = 128 * 1024 * 1024  # bytes that a live run keeps for a slow disk before it gives its recording up


class Conductor(Stage):
    """Remembers frames in flight, tracks, votes and the gallery, and makes every decision."""

    name: ClassVar[str] = "conductor"

    def open(self) -> None:
        config = self.config
        self._complain = Complaint()
        self._sockets: list[Socket] = []
        self._archive: Socket | None = None
        self._waiting: deque[list[Any]] = deque()  # for the archive
        # An analysis of a file says the same however often it is made: it leaves no trace among the people.
        remembers = config.identity.remember_unknown and not config.every_frame
        records = config.recording != "off" and config.endpoints.archive is not None
        tape = Tape()
        recall = (
            RecordedRecall(tape, config.identity.most_unknown, remembers=remembers)
            if records
            else Recall(config.identity.most_unknown, remembers=remembers)
        )
        self._keeper = Keeper(config, self.instance)
        self._keeper.numbers_low = lambda: recall.remembers and recall.unknown.free_numbers < 50
        first, self._track_ids = config.pipeline.first_track, TrackIds()
        self._keeper.tracks_low = lambda: first is None and self._track_ids.low
        try:
            recall.install(self._keeper.open())
            tape.cut()  # the replay begins with the people of this moment
        except StoreError as error:
            raise StageError(str(error)) from error
        self._reserve_tracks()
        new_track = itertools.count(first).__next__ if first else self._track_ids
        self._recorded: RecordedConductor | None = None
        if isinstance(recall, RecordedRecall):
            self._recorded = RecordedConductor(
                config, self, sender=self.instance, recall=recall, new_track=new_track, tape=tape,
                biometrics=config.recording == "biometric",
            )  # fmt: skip
        self._thinking = self._recorded or Thinking(
            config, self, sender=self.instance, recall=recall, new_track=new_track
        )
        self._frames = self._opened("frames", "pull")
        self._jobs = self._opened("jobs", "xpub")
        self._findings = self._opened("findings", "pull")
        self._pictures = self._opened("pictures", "xpub")
        if config.endpoints.archive is not None:
            self._archive = opened("archive", config.endpoints.archive, "push", linger_ms=1000)
            self._sockets.append(self._archive)
        self._next_written = 0.0
        self._unwritten = 0  # that was said
        self._told: deque[float] = deque(maxlen=MOST_TOLD)
        self._watched: set[bytes] = set()
        self._shared = RingReader(config)
        # Pictures that preview may be looking at, by camera: until when, and the picture.
        self._shown: defaultdict[str, deque[tuple[float, Any]]] = defaultdict(
            functools.partial(deque, maxlen=MOST_SHOWN)
        )
        self._motion: dict[str, Motion] = {}
        self._taking = True
        self._next_tick = 0.0
        self._next_sample: dict[str, float] = {}  # by camera, monotonic seconds
        self._ended: set[str] = set()

    def handle(self, ready: set[Socket]) -> None:
        now = time.monotonic()
        if self._jobs in ready:
            self._read_subscriptions()
        if self._pictures in ready:
            self._read_watchers()
        if self._findings in ready:
            self._drain(self._findings, self._on_finding, 256)
        if self._frames in ready and self._taking:
            self._drain(self._frames, self._on_frame, 64)
        if now >= self._next_tick:  # what happened has been thought about; this is for what did not happen
            self._next_tick = now + TICK_S
            self._thinking.tick(now)
            for shown in self._shown.values():
                while shown and shown[0][0] < now:
                    shown.popleft()
            self._keep_people()
        if self._recorded is not None and now >= self._next_written:
            self._next_written = now + RECORDED_EVERY_S
            self._write_down(self._recorded)
        while self._thinking.unsaid:
            self._complain(self.log, "results", self._thinking.unsaid.popleft())
        self._archive_waiting()
        self._take_or_leave()
        # Whoever keeps an archive ends the run itself, once all of it has arrived there.
        keeps = self._archive is not None and self._recorded is None
        if self.config.every_frame and not keeps and self._ended >= set(self.config.own_cameras):
            self.finished = True

    def wait_ms(self) -> float:
        # What does not happen can only be noticed of what is under way.
        busy = self._thinking.busy() or self._waiting or any(self._shown.values())
        return 1e3 * (TICK_S if busy else IDLE_TICK_S)

    def close(self) -> None:
        recorded = getattr(self, "_recorded", None)
        if recorded is not None and self._archive is not None:
            self._waiting += [[TOPIC, recorded.written()], [FAREWELL]]
            deadline = time.monotonic() + FAREWELL_S
            while self._waiting and time.monotonic() < deadline:
                if self._archive.send(self._waiting[0], timeout_ms=100):
                    self._waiting.popleft()
        for socket in getattr(self, "_sockets", []):
            socket.close()
        if hasattr(self, "_thinking"):
            for line in self._thinking.lines.values():
                line.naming.clear()
            self._keeper.write(self._thinking.recall.events())
        if hasattr(self, "_keeper"):
            self._keeper.close()

    def detail(self) -> dict[str, float | str]:
        counts, dispatcher = self._thinking.counts, self._thinking.dispatcher
        unwritten = self._keeper.lost + self._thinking.recall.lost
        if unwritten > self._unwritten:
            self.log.warning("%d more of what was noticed of people cannot be kept", unwritten - self._unwritten)
            self._unwritten = unwritten
        figures: dict[str, float | str] = {
            "displaced": counts.displaced,
            "lost": counts.lost,
            "rested": counts.rested,
            "late_expressions": counts.late_expressions,
            "unwritten": unwritten,
        }
        for pool in ("detection", "identity", "expression"):
            figures[f"{pool}_workers"] = dispatcher.workers(pool)
            figures[f"{pool}_waiting"] = dispatcher.waiting(pool)
        self.meter.dropped = counts.displaced + counts.lost
        return figures

    # --- what the thinking decides (Outbox) ---

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        self._jobs.send([job_topic(worker), pack(message), *blobs])

    def result(self, result: Result, flight: Flight) -> None:
        self.meter.given += 1
        self.meter.worked(result.latency_ms)
        if self._archive is not None and self._recorded is None:
            self._waiting.append([b"picture", pack(self._picture(result, flight)), flight.pixels])
            self._archive_waiting()
        self.news.publish(result, result.camera)
        now = time.monotonic()
        if now >= self._next_sample.get(result.camera, 0.0):
            due = self._next_sample.get(result.camera, 0.0) + SAMPLE_S  # from when it was due: ten, not seven or eight
            self._next_sample[result.camera] = max(due, now)
            self.news.publish(Sample.of(result), result.camera)
        if not flight.overtaken:
            self.picture(result, flight)

    def picture(self, result: Result, flight: Flight) -> None:
        topic = result.camera.encode()
        if any(topic.startswith(watched) for watched in self._watched):
            shared = flight.frame.slot is not None
            self._pictures.send([topic, pack(self._picture(result, flight)), *([] if shared else [flight.pixels])])
            if shared:  # for as long as it takes to be shown
                self._shown[result.camera].append((time.monotonic() + SHOWN_S, flight.pixels))

    def correction(self, message: Correction) -> None:
        self.news.publish(message, message.camera)

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        self._ended.add(camera)
        if missing is None:
            self.log.warning("%s: broken off: its capture was started again and can read its source no more", camera)
        elif missing > 0:
            self.log.warning("%s: the last %d frames never came here and are not in the results", camera, missing)
        if self._archive is not None and self._recorded is None:
            frames = self._thinking.counts.results + max(0, missing or 0)
            end = EndOfSource(sender=self.instance, camera=camera, run=run, frames=frames)
            self._waiting.append([b"end", pack(end)])

    # --- people ---

    def control(self, request: Control) -> Answer | None:
        args = request.args
        if request.do == "people":  # somebody has changed them: a hint to look now
            self._keeper.hint()
            return {}
        if request.do not in ("select", "enrol"):
            return super().control(request)
        lines, cameras = self._thinking.lines, self.config.own_cameras
        among = lines or cameras  # there may be none that has given a picture
        alone = len(among) == 1 and self.config.cell.cameras is None
        camera = args.get("camera") or (next(iter(among)) if alone else None)
        line = lines.get(str(camera))
        if line is None and camera in cameras:
            raise ControlError(f"{camera} has given no pictures yet")
        if line is None:
            raise ControlError(f"which camera is meant? There are {', '.join(self.config.cameras)}")
        track, person, number = (_whole(args, name) for name in ("track", "person", "number"))
        if request.do == "select":
            if not self._thinking.select(line.camera, track, person, number):
                raise ControlError(f"there is no track {track} in view of {line.camera}")
            return {"camera": line.camera, "track": track}
        name = args.get("name")
        if not isinstance(name, str) or track is None:
            raise ControlError("a name and a track are needed")
        fields = {key: args[key] for key in ("role", "notes", "consent", "consent_until") if args.get(key) is not None}
        try:
            name = checked_name(name)
            check_fields(**fields)
        except PeopleError as error:
            raise ControlError(str(error)) from error
        again, alike = (args.get(how) is True for how in ("again", "alike"))
        order = Enrolment(request=request.request, name=name, fields=fields, again=again, alike=alike)
        if not self._thinking.enrol(line.camera, order, track):
            raise ControlError(f"there is no track {track} in view of {line.camera}")
        return None  # answered when enough crops have come

    def _keep_people(self) -> None:
        self._reserve_tracks()
        recall = self._thinking.recall
        for line in self._thinking.lines.values():
            line.naming.collector.tick(time.monotonic())
            while line.naming.collector.failed:
                request, why = line.naming.collector.failed.popleft()
                self.answer(request, error=why)
        for done in self._keeper.answers():
            self.answer(done.request, done.result, error=done.why)
        if events := recall.events():
            self._keeper.write(events)
        # Everything of an analysis is judged by the people who were known when it began.
        snapshot = None if self.config.every_frame else self._keeper.news()
        if snapshot is not None:
            self._thinking.people(snapshot)

    def _reserve_tracks(self) -> None:
        for block in self._keeper.tracks():
            self._track_ids.add(block)

    # --- sockets ---

    def _opened(self, channel: str, role: str) -> Socket:
        socket = opened(channel, self.config.endpoint(channel), role, bind=True)
        self._sockets.append(socket)
        self.poller.add(socket)
        return socket

    def _picture(self, result: Result, flight: Flight) -> Picture:
        return Picture(
            sender=self.instance,
            encoding=flight.frame.encoding,
            slot=flight.frame.slot,
            result=result,
            blur=flight.blur,
            blur_all=flight.blur_all,
        )

    def _read_subscriptions(self) -> None:
        while (parts := self._jobs.receive()) is not None:
            word = bytes(parts[0][:256])
            worker = word[1:-1].decode("ascii", "replace")
            if word.startswith(b"\x01"):
                self._tell("%s has come", worker)
                self._thinking.subscribed(worker, time.monotonic())
            elif word.startswith(b"\x00"):
                self._tell("%s has gone", worker)
                self._thinking.gone(worker, time.monotonic())

    def _tell(self, what: str, worker: str) -> None:
        """Log it, but for somebody who comes and goes without end."""
        now = time.monotonic()
        if len(self._told) < MOST_TOLD or now - self._told[0] > TOLD_WITHIN_S:
            self._told.append(now)
            self.log.info(what, worker)

    def _read_watchers(self) -> None:
        while (parts := self._pictures.receive()) is not None:
            word = bytes(parts[0][:256])
            (self._watched.add if word.startswith(b"\x01") else self._watched.discard)(word[1:])

    def _drain(self, socket: Socket, take: Callable[[list[memoryview], float], None], most: int) -> None:
        for _ in range(most):
            parts = socket.receive()
            if parts is None:
                return
            try:
                if len(parts) < 2:
                    raise MessageError(f"{len(parts)} parts came, a kind and a map were expected")
                take(parts, time.monotonic())
            except MessageError as error:
                self.meter.bad_messages += 1
                self._complain(self.log, socket.channel.name, error)
            if (socket is self._frames and self._thinking.full()) or not socket.waits():
                return

    def _on_frame(self, parts: list[memoryview], now: float) -> None:
        kind = kind_of(bytes(parts[0][:256]))
        if kind is EndOfSource:
            self._thinking.end_of_source(unpack(EndOfSource, parts[1]), now)
            return
        if kind is not Frame:
            raise MessageError(f"a frame was expected, {kind.__name__} came")
        frame = unpack(Frame, parts[1])
        if len(parts) != (2 if frame.slot else 3):
            raise MessageError(f"frame {frame.seq} of {frame.camera} came in {len(parts)} parts")
        if frame.slot is not None:
            pixels: Any = self._shared.hold(frame.slot, frame.width, frame.height)
        else:
            pixels = parts[2]
            size = pixels.nbytes
            if (size != frame.width * frame.height * 3) if frame.encoding == "raw" else not size:
                raise MessageError(f"frame {frame.seq} of {frame.camera} has {size} bytes: not its width and height")
        if frame.encoding == "raw" and self._thinking.nobody(frame):
            picture = pixels.picture(frame.width, frame.height) if frame.slot else np.frombuffer(pixels, np.uint8)
            motion = self._motion.setdefault(frame.camera, Motion())
            moving = motion.moved(picture.reshape(frame.height, frame.width, 3), frame.media_time_s)
            frame = frame.model_copy(update={"moving": moving})
        self.meter.taken += 1
        self._ended.discard(frame.camera)
        self._thinking.frame(frame, pixels, now)

    def _on_finding(self, parts: list[memoryview], now: float) -> None:
        kind, blobs = kind_of(bytes(parts[0][:256])), parts[2:]
        if kind is Ready:
            self._thinking.ready(unpack(Ready, parts[1]), now)
        elif kind is DetectionFinding:
            self._thinking.detection(unpack(DetectionFinding, parts[1], blobs), blobs, now)
        elif kind is ExpressionFinding:
            self._thinking.expression(unpack(ExpressionFinding, parts[1], blobs), blobs, now)
        elif kind is IdentityFinding:
            self._thinking.identity(unpack(IdentityFinding, parts[1], blobs), blobs, now)
        else:
            raise MessageError(f"{kind.__name__} is no finding")

    def _write_down(self, recorded: RecordedConductor) -> None:
        """Send what was recorded on its way; give the recording up rather than make a live run wait for a disk."""
        if entries := recorded.written():
            self._waiting.append([TOPIC, entries])
        if self.config.every_frame or len(self._waiting) <= ARCHIVE_WAITING:
            return
        if not recorded.stopped and sum(len(parts[1]) for parts in self._waiting) > RECORDING_WAITING:
            why = f"what is written down was not taken for so long that {RECORDING_WAITING >> 20} MB wait"
            recorded.give_up(why)
            self.log.warning("the recording ends here, the run goes on: %s (is the disk slow or full?)", why)

    def _archive_waiting(self) -> None:
        while self._waiting and self._archive is not None and self._archive.send(self._waiting[0]):
            self._waiting.popleft()

    def _take_or_leave(self) -> None:
        """Take frames in, or leave them to their senders, who wait: so every-frame mode loses nothing."""
        patient = self._recorded is None or self.config.every_frame
        taking = not self._thinking.full() and (not patient or len(self._waiting) < ARCHIVE_WAITING)
        if taking and not self._taking:
            self.poller.add(self._frames)
        elif self._taking and not taking:
            self.poller.remove(self._frames)
        self._taking = taking


def _whole(args: Mapping[str, Any], name: str) -> int | None:
    value = args.get(name)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise ControlError(f"{name} is a number, not {str(value)[:40]!r}")
    return value


if __name__ == "__main__":
    sys.exit(main(Conductor))
