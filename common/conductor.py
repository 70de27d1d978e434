"""The conductor's thinking: what arrives, what is asked of whom, what is published. No sockets.

Findings come in any order; tracks, names and expressions are decided in the order of the frames, a camera at a time.
What is to be sent goes to an ``Outbox``, which the stage connects to its sockets and a test to a list.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from common.detected import detected_from
from common.dispatch import Dispatcher, Job
from common.line import Flight, Line
from common.messages import (
    Box,
    Correction,
    DetectionFinding,
    DetectionJob,
    EndOfSource,
    ExpressionFinding,
    ExpressionJob,
    Frame,
    IdentityFinding,
    IdentityJob,
    Message,
    MessageError,
    Ready,
    Result,
    array_from,
)
from common.naming import correction
from common.recall import Enrolment, Recall, Snapshot
from common.settings import Config
from common.tracks import Track
from models.quality import turned

IDENTITY_WAITS_S = 2.0  # for a worker; longer ones are asked for anew, with what is to be seen then
IDENTITY_BATCH = 8  # faces a job at most: a slow worker is not to be busy with a whole crowd for seconds
SILENT_S = 1.0  # when nothing of a camera's run could be taken for so long, it may be over
STILLS_BYTES = 256 * 1024 * 1024  # of a folder's pictures, which are taken in so that live cameras need not wait
EMBEDDING = 128
CHIP = 150


Answer = tuple[Track, Any, Any, float, float]  # whose; embedding, (128,) float32; chip; quality and turn


class Outbox(Protocol):
    """Where the conductor's decisions go."""

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        """Send a job to a worker."""

    def result(self, result: Result, flight: Flight) -> None:
        """Publish a result, its picture beside it unless that has been overtaken."""

    def picture(self, result: Result, flight: Flight) -> None:
        """Show a picture without an analysis."""

    def correction(self, message: Correction) -> None:
        """Publish that a track is somebody else, or that its name was found late."""

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        """All frames of a source that has ended are published, but for so many of the last that never came.

        None: the run broke off, and a later one, which this is, had no picture.
        """


@dataclass(slots=True, kw_only=True)
class Work:
    """What a job is about: its flight, and the faces or tracks it asks for."""

    flight: Flight
    line: Line
    faces: list[int] | None = None
    tracks: list[Track] | None = None
    looks: list[tuple[float, float]] | None = None  # quality and turn of the faces that identity looks at
    answers: dict[int, Answer] = field(default_factory=dict)  # of all identity jobs of a frame, by face
    known: tuple[Box, ...] | None = None
    near: tuple[Box, ...] | None = None


@dataclass(slots=True)
class Counts:
    """What happened to frames, since the start."""

    frames: int = 0
    displaced: int = 0  # a newer one came before a worker was free
    lost: int = 0  # their worker died or was too slow, or what was found in them could not be said
    late_expressions: int = 0  # answers that were not there when their frame was published
    rested: int = 0  # not looked at: nobody has been in view for a while
    results: int = 0


class Conductor:
    """Remembers and decides for all cameras of a cell.

    Args:
        outbox: takes what is decided.
        new_track: gives track ids that were never used before.
        recall: the people that are known.
        sender: this process, as it signs its messages.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        *,
        sender: str,
        new_track: Callable[[], int] | None = None,
        recall: Recall | None = None,
    ) -> None:
        self.counts = Counts()
        self.dispatcher: Dispatcher[Work] = Dispatcher(timeout_s=config.pipeline.job_timeout_ms / 1e3)
        self.lines: dict[str, Line] = {}
        self._config = config
        self._outbox = outbox
        self._sender = sender
        self._new_track = new_track or itertools.count(1).__next__
        self.recall = Recall() if recall is None else recall
        self._job_ids = itertools.count(1)
        self._patient: set[str] = set()  # cameras of whose frames none may be left out
        self.unsaid: deque[MessageError] = deque(maxlen=16)  # why something could not be said; for the log

    # --- what arrives ---

    def frame(self, frame: Frame, pixels: Any, now: float) -> None:
        """Take a picture; ``pixels`` are bytes, or what keeps them in shared memory until it is let go.

        Raises:
            MessageError: it is of a run that has been superseded, or a number that has been before.
        """
        line = self._line(frame.camera)
        if self._begins(line, frame, now):
            # The people in view stay who they are: who was being looked at is to be looked at again.
            works = [job.payload for job in self.dispatcher.forget(frame.camera)]
            asked = (track for work in works for track in work.tracks or [])
            answered = (track for work in works for track, *_ in work.answers.values())  # and the rest is missing
            for track in {track.id: track for track in (*asked, *answered)}.values():
                line.identity_lost(track)
            line.begin(frame, now)
        if frame.run != line.run or frame.seq <= line.last_seq:
            raise MessageError(f"frame {frame.seq} of run {frame.run} of {frame.camera} is older than what is here")
        self.counts.frames += 1
        (self._patient.add if _keeps(frame) else self._patient.discard)(frame.camera)
        line.keep_time(frame, now)
        if line.rests(frame):
            self.counts.rested += 1
            line.rest(frame, pixels, now)
        else:
            self._ask_detection(line, line.arrive(frame, pixels, now))
        self._show_early(line, now)
        return self._turn(now)

    def _begins(self, line: Line, frame: Frame, now: float) -> bool:
        """Whether a frame is the first of a new run: of a later one, or of any where the present one is silent.

        Runs are numbered by the wall clock, which may have been set back while a camera was started again; and a number
        that was damaged on its way must not make all that come after it look old.
        """
        if line.run is None or frame.run > line.run:
            return True
        old = frame.run != line.run or frame.seq <= line.last_seq
        # Where nothing may be lost it is silent, too, while no more can be taken in.
        free = not any(_keeps(flight.frame) for flight in line.flights.values())
        return old and free and now - line.received_at > SILENT_S

    def end_of_source(self, end: EndOfSource, now: float) -> None:
        """A source has no more pictures: say so once all that came are published. May be told again and again."""
        self._line(end.camera).end(end.run, end.frames)
        self._turn(now)

    def subscribed(self, worker: str, now: float) -> None:
        """A worker can be reached."""
        self.dispatcher.subscribed(worker)
        self._turn(now)

    def gone(self, worker: str, now: float) -> None:
        """A worker cannot be reached any more."""
        self._give_up(self.dispatcher.gone(worker))
        self._turn(now)

    def ready(self, message: Ready, now: float) -> None:
        """A worker waits for work."""
        self._give_up(self.dispatcher.ready(message.sender, message.pool, message.last_job, now))
        self._turn(now)

    def detection(self, finding: DetectionFinding, blobs: Sequence[Any], now: float) -> None:
        """Take the faces found in a frame.

        Raises:
            MessageError: the arrays do not fit what the map says; the frame is then handled as lost.
        """
        job = self.dispatcher.done(finding.sender, finding.job, now)
        if job is None or not _in_line(job.payload):
            return self._turn(now)
        flight = job.payload.flight
        try:
            if finding.error is not None:
                raise MessageError(f"{finding.sender} could not analyse frame {flight.frame.seq}: {finding.error}")
            flight.detected = detected_from(finding, blobs, flight.frame.width, flight.frame.height)
        except MessageError:
            self._give_up(self.dispatcher.again(job))
            self._turn(now)
            raise
        job.payload.line.answered(flight, now)
        flight.timings["wait"] = max(0.0, (job.given_at - flight.received) * 1e3)
        flight.timings["detection"] = finding.work_ms
        self._ask_expression(job.payload.line, flight)
        return self._turn(now)

    def expression(self, finding: ExpressionFinding, blobs: Sequence[Any], now: float) -> None:
        """Take the probabilities of some faces. Raises MessageError as ``detection``."""
        job = self.dispatcher.done(finding.sender, finding.job, now)
        if job is None:
            return self._turn(now)
        flight, faces = job.payload.flight, job.payload.faces or []
        try:
            if finding.error is not None or finding.count != len(faces):
                raise MessageError(f"{finding.sender}: {finding.error or 'another number of faces was asked for'}")
            probabilities = array_from(_only(blobs, "probabilities"), (len(faces), 7), np.float32, "probabilities")
            if (abs(probabilities.sum(axis=1) - 1) > 1e-2).any() or (probabilities < 0).any():
                raise MessageError(f"{finding.sender}: probabilities that do not sum to 1")
            judged = dict(zip(faces, probabilities, strict=True))
            if not _in_line(job.payload):
                return job.payload.line.judged_late(flight, judged)
            flight.open_expression.discard(job.id)
            flight.probabilities.update(judged)
            flight.timings["expression"] = max(flight.timings.get("expression", 0.0), finding.work_ms)
        except MessageError:
            self._give_up(self.dispatcher.again(job))
            raise
        finally:
            self._turn(now)

    def identity(self, finding: IdentityFinding, blobs: Sequence[Any], now: float) -> None:
        """Take the embeddings of some tracks. Raises MessageError as ``detection``."""
        job = self.dispatcher.done(finding.sender, finding.job, now)
        if job is None:
            return self._turn(now)
        work = job.payload
        late = job.id not in work.flight.open_identity  # it was given up, and what has been asked again since is newer
        faces, tracks, looks = work.faces or [], work.tracks or [], work.looks or []
        try:
            if finding.error is not None or finding.count != len(tracks):
                raise MessageError(f"{finding.sender}: {finding.error or 'another number of faces was asked for'}")
            if len(blobs) != 2:
                raise MessageError(f"{finding.sender}: embeddings and chips were expected, {len(blobs)} parts came")
            embeddings = array_from(blobs[0], (len(tracks), EMBEDDING), np.float32, "embeddings")
            chips = array_from(blobs[1], (len(tracks), CHIP, CHIP, 3), np.uint8, "chips")
            for face, track, embedding, chip, look in zip(faces, tracks, embeddings, chips, looks, strict=True):
                if not (late and work.line.is_looked_at(track)):
                    work.answers[face] = (track, embedding, chip, *look)
            work.flight.open_identity.discard(job.id)
            self._identify(work)
        except MessageError:
            if not late:
                self._give_up(self.dispatcher.again(job))
            raise
        finally:
            self._turn(now)

    def tick(self, now: float) -> None:
        """Notice what did not happen: deadlines, jobs without an answer. Call it at least every 20 ms."""
        self._give_up(self.dispatcher.sweep(now))
        for line in self.lines.values():
            while (flight := line.overdue(now)) is not None and flight.job is not None:
                if (job := self.dispatcher.withdraw(flight.job)) is None:
                    break
                self._fail(job)
        self._turn(now)
        for line in self.lines.values():
            self._show_early(line, now)

    def people(self, snapshot: Snapshot) -> None:
        """The people in the store are others now: judge everybody in view again."""
        gone = self.recall.install(snapshot)
        for line in self.lines.values():
            line.people_changed(gone)

    def select(self, camera: str, track: int | None, person: int | None, number: int | None) -> bool:
        """Follow a face of a camera that is in ``lines`` (None: nobody); return False if there is no such track."""
        return self.lines[camera].naming.select(track, person, number)

    def enrol(self, camera: str, order: Enrolment, track: int) -> bool:
        """Gather crops of a track of a camera that is in ``lines``; return False if there is no such track."""
        line = self.lines[camera]
        return line.naming.enrol(order, track, line.now_s())

    def nobody(self, frame: Frame) -> bool:
        """Return whether nobody has been in view of a frame's camera for a while: then it matters what moves."""
        line = self.lines.get(frame.camera)
        return line is not None and line.run == frame.run and line.nobody(frame)

    def busy(self) -> bool:
        """Whether a frame is under way."""
        return any(line.flights for line in self.lines.values())

    def full(self) -> bool:
        """Whether no more frames are to be taken in: as many are in flight as may be where none is left out.

        Frames of all cameras come by one way: beside live ones more of a folder's pictures are taken in, for these to
        get through, as long as there is memory for them.
        """
        window = self._config.pipeline.window
        full = [line for line in self.lines.values() if len(line.flights) >= window and _keeps(_last(line).frame)]
        if self._config.every_frame or self._patient >= set(self._config.own_cameras):
            return bool(full)
        frames = (flight.frame for line in full for flight in line.flights.values())
        return sum(3 * frame.width * frame.height for frame in frames) > STILLS_BYTES

    # --- inside ---

    def _line(self, camera: str) -> Line:
        line = self.lines.get(camera)
        if line is None:
            if camera not in self._config.cameras:
                raise MessageError(f"there is no camera {camera!r} in the configuration")
            line = Line(self._config, camera, new_track=self._new_track, recall=self.recall)
            self.lines[camera] = line
        return line

    def _show_early(self, line: Line, now: float) -> None:
        if (flight := line.kept_waiting(now)) is not None:
            with self._saying():
                self._outbox.picture(line.show_early(flight, now, self._sender), flight)

    def _turn(self, now: float) -> None:
        """Do everything that can be done now: track, publish, ask."""
        for line in self.lines.values():
            progress = True
            while progress:
                progress = False
                while (flight := line.next_to_track()) is not None:
                    self._ask_identity(line, flight, line.track(flight))
                    progress = True
                while (flight := line.next_to_publish(now)) is not None:
                    progress = True
                    with self._saying():
                        self._publish(line, flight, now)
                    line.flights.pop(flight.frame.seq, None)  # also if it could not be said
            # The end comes behind all frames: one that is not here by now was lost, with a conductor before this one
            # or on its way.
            if line.frames_announced is not None and not line.flights:
                missing = line.frames_announced - 1 - line.last_seq
                line.frames_announced, line.over = None, True
                self._outbox.ended(line.camera, line.run or 0, None if line.broken else missing)
        for worker, job in self.dispatcher.assign(now):
            self._send(worker, job)

    def _publish(self, line: Line, flight: Flight, now: float) -> None:
        """Say what was found in the oldest flight of a line, or show that nobody looked at it."""
        if flight.rested:
            if (shown := line.show_rested(flight, now, self._sender)) is not None:
                self._outbox.picture(shown, flight)
            return
        self.counts.late_expressions += len(flight.open_expression)
        flight.open_expression.clear()  # they are counted once
        self.counts.results += 1
        self._outbox.result(line.publish(flight, now, self._sender), flight)
        while line.naming.corrections:
            self._outbox.correction(correction(line.naming.corrections.popleft(), self._sender))

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """A message of our own that is not valid is lost, and all others go on."""
        try:
            yield
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            self._not_said(MessageError(f"{error.title} of our own: {where}: {first['msg']}"))
        except MessageError as error:
            self._not_said(error)

    def _not_said(self, error: MessageError) -> None:
        self.counts.lost += 1
        self.unsaid.append(error)

    def _send(self, worker: str, job: Job[Work]) -> None:
        work = job.payload
        frame, detected = work.flight.frame, work.flight.detected
        head: dict[str, Any] = {
            "sender": self._sender,
            "camera": frame.camera,
            "run": frame.run,
            "seq": frame.seq,
            "captured_at": frame.captured_at,
            "job": job.id,
        }
        message: Message
        if job.pool == "detection":
            if job.tries == 1:
                work.known = work.line.named_boxes(frame)
                work.near = work.line.near(frame)
            work.flight.asked, work.flight.close = job.given_at, work.near is not None
            message = DetectionJob(
                **head,
                width=frame.width,
                height=frame.height,
                encoding=frame.encoding,
                slot=frame.slot,
                near=work.near,
                known=work.known,
            )
            self._outbox.job(worker, message, [] if frame.slot else [work.flight.pixels])
        elif job.pool == "expression":
            assert detected is not None and work.faces is not None
            position = {face: row for row, face in enumerate(detected.assessable)}
            rows = [position[face] for face in work.faces]
            crops = np.ascontiguousarray(detected.crops[rows])
            work.line.judges(work.flight, work.faces)
            message = ExpressionJob(**head, count=len(rows), size=crops.shape[1])
            self._outbox.job(worker, message, [crops])
        else:
            assert detected is not None and work.faces is not None
            finding = detected.finding
            rows = [finding.patch_faces.index(face) for face in work.faces]
            message = IdentityJob(
                **head,
                shapes=tuple(finding.patch_shapes[row] for row in rows),
                boxes=tuple(finding.patch_boxes[row] for row in rows),
            )
            self._outbox.job(worker, message, [detected.patches[face] for face in work.faces])

    def _ask_detection(self, line: Line, flight: Flight) -> None:
        keep = _keeps(flight.frame)
        job = Job(
            id=next(self._job_ids),
            pool="detection",
            camera=line.camera,
            payload=Work(flight=flight, line=line),
            keep=keep,
            newest_only=not keep,
        )
        flight.job = job.id
        for old in self.dispatcher.put(job):
            self.counts.displaced += 1
            old.payload.line.flights.pop(old.payload.flight.frame.seq, None)

    def _ask_expression(self, line: Line, flight: Flight) -> None:
        detected = flight.detected
        assert detected is not None
        frame, batch = flight.frame, self._config.expression.batch
        keep = _keeps(frame)
        deadline = float("inf") if keep else flight.detected_at + self._config.pipeline.deadline_ms / 1e3
        faces = detected.assessable
        if not faces or not line.wants_expressions(frame):
            return
        if len(faces) > batch and not keep:
            faces = line.in_turn(flight, faces)
        for start in range(0, len(faces), batch):
            work = Work(flight=flight, line=line, faces=faces[start : start + batch])
            job = Job(
                id=next(self._job_ids),
                pool="expression",
                camera=frame.camera,
                payload=work,
                keep=keep,
                # Where jobs wait for longer than from frame to frame, the answers for old ones would all come too late.
                newest_only=not keep and start == 0,
                deadline=deadline,
            )
            flight.open_expression.add(job.id)
            self._give_up(self.dispatcher.put(job))

    def _ask_identity(self, line: Line, flight: Flight, wanted: list[tuple[int, Track]]) -> None:
        detected = flight.detected
        assert detected is not None
        keep, answers = _keeps(flight.frame), dict[int, Answer]()
        # A face that has waited so long has a newer picture by then.
        deadline = float("inf") if keep else flight.detected_at + IDENTITY_WAITS_S
        for start in range(0, len(wanted), IDENTITY_BATCH):
            batch = wanted[start : start + IDENTITY_BATCH]
            work = Work(
                flight=flight,
                line=line,
                faces=[face for face, _ in batch],
                tracks=[track for _, track in batch],
                looks=[(float(detected.qualities[face, 0]), turned(detected.landmarks[face])) for face, _ in batch],
                answers=answers,
            )
            job = Job(
                id=next(self._job_ids), pool="identity", camera=line.camera, payload=work, keep=keep, deadline=deadline
            )
            flight.open_identity.add(job.id)
            self.dispatcher.put(job)

    def _identify(self, work: Work) -> None:
        """Take the answers that have come: where none is left out all of a frame together, in the order of its faces.

        Or who is a stranger with which number would depend on which worker is the quickest.
        """
        if work.flight.open_identity and _keeps(work.flight.frame):
            return
        for face in sorted(work.answers):
            work.line.identified(*work.answers[face], work.flight)
        work.answers.clear()

    def _give_up(self, jobs: list[Job[Work]]) -> None:
        for job in jobs:
            self._fail(job)

    def _fail(self, job: Job[Work]) -> None:
        """A job will have no answer."""
        work = job.payload
        flight = work.flight
        if job.pool == "expression":
            if job.id in flight.open_expression:
                self.counts.late_expressions += 1
            flight.open_expression.discard(job.id)
        elif job.pool == "identity":
            flight.open_identity.discard(job.id)
            for track in work.tracks or []:
                work.line.identity_lost(track)
            self._identify(work)
        elif job.keep:
            flight.failed = True
        else:
            self.counts.lost += 1
            work.line.flights.pop(flight.frame.seq, None)


def _only(blobs: Sequence[Any], what: str) -> Any:
    if len(blobs) != 1:
        raise MessageError(f"{what}: one part was expected, {len(blobs)} came")
    return blobs[0]


def _keeps(frame: Frame) -> bool:
    """Whether a frame may not be left out."""
    return frame.every_frame or frame.still


def _in_line(work: Work) -> bool:
    """Whether a job's frame is still to be published."""
    return work.line.flights.get(work.flight.frame.seq) is work.flight


def _last(line: Line) -> Flight:
    return next(reversed(line.flights.values()))
