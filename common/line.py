"""One camera's line of frames: in the air, in order, with the faces that are followed across them. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import clock
from common.attention import Attention
from common.detected import Detected
from common.expressions import EXPRESSIONS
from common.media_time import MediaTime
from common.messages import Box, Expression, Face, Frame, Identity, Probabilities, Result
from common.naming import Naming
from common.pace import Pace
from common.patience import Patience
from common.quiet import Quiet
from common.recall import Recall
from common.settings import Config
from common.smoothing import Look, Smoother
from common.tracks import Track, Tracker
from common.votes import TrackIdentity

CALM_S = 0.1
RESTING = 2  # frames that nobody need look at and that wait behind a look; of more, the newest

Floats = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class Flight:
    """A frame between its arrival and its result."""

    frame: Frame
    pixels: Any
    received: float  # monotonic seconds
    at_s: float  # media time in this line, which never goes back
    job: int | None = None  # the detector's: when a worker was given it, and whether to look around known faces only
    asked: float | None = None  # monotonic seconds
    close: bool = False
    detected: Detected | None = None
    detected_at: float = 0.0
    rested: bool = False  # nobody need look at it: it only keeps its turn
    failed: bool = False  # no detection will come; in every-frame mode the frame is published unanalysed
    tracks: list[Track | None] | None = None
    probabilities: dict[int, Floats] = field(default_factory=dict)  # face → (7,)
    open_expression: set[int] = field(default_factory=set)  # jobs
    open_identity: set[int] = field(default_factory=set)
    timings: dict[str, float] = field(default_factory=dict)
    blur: tuple[Box, ...] = ()  # what nobody may see, once it is published
    blur_all: bool = False
    overtaken: bool = False  # a newer picture of its camera has been shown: after it this one would be a jump back


@dataclass(slots=True)
class Followed:
    """What is remembered of a track beside where it is."""

    smoother: Smoother
    identity: TrackIdentity
    size: tuple[float, float] | None = None  # width and height as published last, and when
    sized_s: float = 0.0


class Line:
    """The frames in flight, tracks, names and expressions of one camera.

    Args:
        new_track: gives the next track id.
        recall: the people that are known.
    """

    def __init__(self, config: Config, camera: str, *, new_track: Callable[[], int], recall: Recall) -> None:
        self.camera = camera
        self.naming = Naming(config, camera, recall)
        self.flights: OrderedDict[int, Flight] = OrderedDict()
        self.run: int | None = None
        self.last_seq = -1
        self.shown_seq = -1  # the newest frame of the run whose picture has been shown
        self.frames_announced: int | None = None  # the source has ended after so many
        self.over = False  # … and all that came are published
        self.broken = False  # … in the middle: how many are missing nobody knows
        self._config = config
        self._new_track = new_track
        self._scene: int | None = None
        self._recall = recall
        self._tracker = Tracker(new_track, alike=recall.alike)
        self._followed: dict[int, Followed] = {}
        self._time = MediaTime()
        self._last_received = 0.0
        self._tracked_size: tuple[int, int] | None = None  # of the pictures, width and height
        self._published_size: tuple[int, int] | None = None
        self._patience = Patience(config.pipeline.stall_ms / 1e3)
        self._published = False  # anything yet
        self._waits_since: float | None = None  # monotonic seconds; a look is outstanding, and none has come since
        self._late = False  # the last result came too late for its picture to wait for it
        # Where faces are blurred, whoever comes must be seen at once, and a picture that nobody looked at would have
        # to be blurred whole.
        clear = config.privacy.blur == "none"
        self._attention = Attention(config.detection.input_long_side, close=config.detection.adapt_input and clear)
        self._judged_to = -math.inf  # the left side of the face that was given to an expression worker last
        self._expression_pace = Pace(config.expression.every_ms / 1e3)
        every_s = config.pipeline.quiet_look_ms / 1e3 if clear else 0.0
        self._quiet = Quiet(every_s, config.pipeline.still_look_ms / 1e3)

    # --- arrival ---

    def begin(self, frame: Frame, now: float) -> None:
        """A new run of the capture: its numbers start again, the people in view stay who they are."""
        if self.run is not None:
            self._time.begin_anew(frame, now - self._last_received)
        self.run = frame.run
        self.last_seq = self.shown_seq = -1
        self.flights.clear()
        self._waits_since = None
        self.frames_announced, self.over, self.broken = None, False, False
        if frame.scene != self._scene:
            self._forget_people()
        self._scene = frame.scene

    def end(self, run: int, frames: int) -> None:
        """The source has no more pictures: so many were in this run. May be told again and again."""
        if self.run is None or (run == self.run and not self.over):
            self.run, self.frames_announced = run, frames
        elif run > self.run and self.frames_announced is None and not self.over:
            # The capture was started again in the middle of the present run, and can read its source no more.
            self.run, self.last_seq = run, -1
            self.frames_announced, self.broken = 0, True

    @property
    def received_at(self) -> float:
        """When the last frame came, monotonic seconds."""
        return self._last_received

    def keep_time(self, frame: Frame, now: float) -> None:
        """A frame of the present run has come: to be told before anything else is asked of it."""
        self._time.arrive(frame, now - self._last_received)

    def arrive(self, frame: Frame, pixels: Any, now: float) -> Flight:
        """A frame of the present run has come."""
        self.last_seq = frame.seq
        self._last_received = now
        flight = Flight(frame=frame, pixels=pixels, received=now, at_s=self._media_s(frame))
        flight.timings["capture"] = frame.age_ms
        self.flights[frame.seq] = flight
        self._waits_since = now if self._waits_since is None else self._waits_since
        return flight

    def rests(self, frame: Frame) -> bool:
        """Return whether the detector need not look at a frame that has come, because nobody has been in view."""
        if frame.still or frame.every_frame or frame.seq <= self.last_seq:
            return False
        return self._quiet.skips(self._media_s(frame), moving=frame.moving)

    def nobody(self, frame: Frame) -> bool:
        """Return whether nobody has been in view for so long that a frame that has come need not be looked at."""
        return not (frame.still or frame.every_frame) and self._quiet.nobody(self._media_s(frame))

    def named_boxes(self, frame: Frame) -> tuple[Box, ...] | None:
        """Return where faces are expected that need no identity patch now; None where every face gets one."""
        if frame.still or frame.every_frame:  # decided when the frame is tracked, not by what is known at the moment
            return None
        if _growth(self._tracked_size, frame) is not None:
            return None
        at_s = self._media_s(frame)
        return tuple(
            track.expected(at_s)
            for track in self._tracker.tracks
            # No crop is at hand yet: it may be as good as a crop can be.
            if not self._followed[track.id].identity.due(at_s, quality=1.0, crossed=track.crossed)
            and not self.naming.collector.wants(track.id, at_s)
        )[:64]

    def near(self, frame: Frame) -> tuple[Box, ...] | None:
        """Return the boxes around which alone the detector shall look; None: at the whole picture."""
        if frame.still or frame.every_frame or _growth(self._tracked_size, frame) is not None:  # as above
            return None
        return self._attention.choose(self._media_s(frame), (frame.width, frame.height), self._tracker.tracks)

    def wants_expressions(self, frame: Frame) -> bool:
        """Return whether the expressions in a frame shall be looked at; the smoothed ones bridge the others."""
        return frame.still or frame.every_frame or self._expression_pace.due(self._media_s(frame))

    def in_turn(self, flight: Flight, faces: list[int]) -> list[int]:
        """Return a frame's faces in the order in which their expressions shall be asked for.

        Where there is not time for all of them, the last ones are left out: so it goes on across the picture from where
        it came to in the frames before, or the same faces would never be judged.
        """
        detected = flight.detected
        assert detected is not None
        lefts = detected.boxes[:, 0].tolist()
        return sorted(faces, key=lambda face: (lefts[face] <= self._judged_to, lefts[face]))

    def judges(self, flight: Flight, faces: list[int]) -> None:
        """These faces of a frame, as ``in_turn`` has them, are being looked at by an expression worker."""
        assert flight.detected is not None
        self._judged_to = float(flight.detected.boxes[faces[-1], 0])

    # --- in order ---

    def next_to_track(self) -> Flight | None:
        """Return the oldest flight whose turn it is to be tracked, if its detection is there."""
        for flight in self.flights.values():
            if flight.rested:
                continue
            if flight.tracks is not None:
                # Where order must not depend on speed, a frame is tracked when the one before has been decided.
                if flight.frame.every_frame or flight.frame.still:
                    return None
                continue
            return flight if flight.detected is not None else None
        return None

    def answered(self, flight: Flight, now: float) -> None:
        """The detector's finding has come."""
        flight.detected_at = now
        if flight.asked is not None:
            self._patience.answered(now - flight.asked, close=flight.close)

    def overdue(self, now: float) -> Flight | None:
        """Return the flight that others, which the detector has answered, wait behind in vain, if there is one.

        It has taken much longer than looks of its kind do: one at the whole picture may well take many times as long
        as one around known faces, and is not lost because that overtakes it.
        """
        waiting = None
        for flight in self.flights.values():
            if flight.frame.every_frame or flight.frame.still:
                return None
            if flight.rested or flight.tracks is not None:
                continue
            if waiting is None:
                if flight.detected is not None or flight.asked is None:
                    return None
                waiting = flight
            elif flight.detected is not None:
                assert waiting.asked is not None
                return waiting if self._patience.is_overdue(now - waiting.asked, close=waiting.close) else None
        return None

    def track(self, flight: Flight) -> list[tuple[int, Track]]:
        """Continue the tracks with a flight's faces; return the (face, track) pairs that identity shall look at."""
        detected, frame = flight.detected, flight.frame
        assert detected is not None
        if frame.still:
            self._forget_people()
        at_s = flight.at_s
        self._time.now_s = at_s
        self._attention.looked(at_s)
        if (growth := _growth(self._tracked_size, frame)) is not None:
            self._tracker.rescale(*growth)
        self._tracked_size = frame.width, frame.height
        flight.tracks, ended = self._tracker.update(at_s, detected.boxes, detected.scores, detected.appearances)
        for track in ended:
            self._followed.pop(track.id, None)
            self.naming.end(track.id)
        self._quiet.seen(at_s, bool(len(detected.boxes) or self._tracker.tracks))
        wanted: list[tuple[int, Track]] = []
        for face, found in enumerate(flight.tracks):
            if found is None:
                continue
            followed = self._followed.get(found.id)
            if followed is None:
                expression = self._config.expression
                followed = self._followed[found.id] = Followed(
                    Smoother(settle_ms=expression.settle_ms, margin=expression.margin),
                    self.naming.begin(found.id, frame),
                )
            quality = float(detected.qualities[face, 0])
            due = followed.identity.due(at_s, quality=quality, crossed=found.crossed)
            if face in detected.patches and (due or self.naming.collector.wants(found.id, at_s)):
                followed.identity.asked(at_s, quality)
                found.crossed = False  # an answer that is lost asks again by itself
                self.naming.collector.asked(found.id, at_s)
                wanted.append((face, found))
        return wanted

    def next_to_publish(self, now: float) -> Flight | None:
        """Return the oldest flight if it is complete, or has waited long enough."""
        if not self.flights:
            return None
        flight = next(iter(self.flights.values()))
        if flight.failed or flight.rested:
            return flight
        if flight.tracks is None:
            return None
        if flight.frame.every_frame or flight.frame.still:
            return None if flight.open_expression or flight.open_identity else flight
        if flight.open_expression and (now - flight.detected_at) * 1e3 < self._config.pipeline.deadline_ms:
            return None
        return flight

    def publish(self, flight: Flight, now: float, sender: str) -> Result:
        """Take the oldest flight out of the line and return its result."""
        self._leave(flight, now)
        faces: list[Face] = []
        at_s = flight.at_s
        unknown = flight.failed or (flight.detected is not None and flight.detected.finding.more > 0)
        flight.blur_all = unknown and self._config.privacy.blur != "none"
        if (growth := _growth(self._published_size, flight.frame)) is not None:
            self._rescale(*growth)
        self._published_size = flight.frame.width, flight.frame.height
        said: dict[str, Any] = {}
        if flight.detected is not None and flight.tracks is not None:
            boxes = flight.detected.boxes
            seen = [(face, t) for face, t in enumerate(flight.tracks) if t is not None and t.id in self._followed]
            rest = set(range(len(boxes))) - {face for face, _ in seen}  # too weak, or somebody else meanwhile
            placed = [(track.id, _box(boxes[face])) for face, track in seen]
            shown = self.naming.show(flight.frame, placed, [_box(boxes[face]) for face in sorted(rest)], at_s)
            flight.blur, said = shown.blur, {"selected": shown.selected, "enrolling": shown.enrolling}
            flight.blur_all |= shown.blur_all
            for face, track in seen:
                identity = shown.identities[track.id]
                faces.append(self._face(flight, face, track, self._followed[track.id], identity, at_s))
        result = self._result(flight, now, sender, analysed=not flight.failed, faces=tuple(faces))
        said = {key: value for key, value in said.items() if value is not None}
        return result.model_copy(update=said) if said else result

    def judged_late(self, flight: Flight, found: dict[int, Floats]) -> None:
        """Expressions in a frame that is published already, by face: they count in what is said of the next ones."""
        for face, own in found.items():
            track = None if flight.tracks is None else flight.tracks[face]
            if track is not None and track.id in self._followed:
                self._followed[track.id].smoother.late(flight.at_s, own)

    def rest(self, frame: Frame, pixels: Any, now: float) -> Flight:
        """A frame has come that nobody need look at. It is shown behind those before it that are being looked at."""
        self.last_seq = frame.seq
        self._last_received = now
        flight = self.flights[frame.seq] = Flight(
            frame=frame, pixels=pixels, received=now, at_s=self._media_s(frame), rested=True
        )
        resting = [seq for seq, other in self.flights.items() if other.rested]
        for seq in resting[:-RESTING]:
            del self.flights[seq]
        return flight

    def show_rested(self, flight: Flight, now: float, sender: str) -> Result | None:
        """Take a frame that nobody looked at out of the line and return what shows it, None if it has been shown."""
        shown = flight.frame.seq <= self.shown_seq
        self._leave(flight, now)
        self._time.now_s = max(self._time.now_s, flight.at_s)
        return None if shown else self._unlooked(flight, now, sender)

    def stalls(self, now: float) -> bool:
        """Return whether pictures had better be shown as they come: a look takes too long, or the last one did.

        How long nothing was published says little: a slow camera has nothing to publish.
        """
        if self._late or not self._published:
            return True
        return self._waits_since is not None and self._patience.is_too_long(now - self._waits_since)

    def kept_waiting(self, now: float) -> Flight | None:
        """Return the newest flight if its picture had better be shown now, and has not been."""
        flight = next(reversed(self.flights.values()), None)
        if flight is None or flight.frame.every_frame or flight.frame.still or flight.frame.seq <= self.shown_seq:
            return None
        return flight if self.stalls(now) else None

    def show_early(self, flight: Flight, now: float, sender: str) -> Result:
        """Return what shows a picture before its turn. It stays in the line if its analysis is still to come."""
        self.shown_seq = flight.frame.seq
        if flight.rested:
            del self.flights[flight.frame.seq]
        flight.blur_all = self._config.privacy.blur != "none"
        return self._unlooked(flight, now, sender)

    # --- identity ---

    def identified(
        self, track: Track, embedding: Floats, chip: Any, quality: float, turn: float, flight: Flight
    ) -> None:
        """The embedding of a track's chip, (150, 150, 3), has come. A track that turns out to be two people's ends."""
        followed = self._followed.get(track.id)
        if followed is None:
            return
        if followed.identity.answered(embedding, quality):
            beside = [other.id for other in flight.tracks or () if other is not None]
            self.naming.looked(track.id, embedding, chip, quality, turn, flight.frame, beside)
        else:
            self._tracker.end(track)
            del self._followed[track.id]
            self.naming.end(track.id)

    def people_changed(self, gone: frozenset[int] | None) -> None:
        """The gallery is another one, and ``gone`` people are forgotten; None: only strangers are others."""
        self.naming.changed(gone)

    def now_s(self) -> float:
        """Return the media time of the last picture."""
        return self._time.now_s

    def is_looked_at(self, track: Track) -> bool:
        """Return whether an identity worker is looking at a track."""
        followed = self._followed.get(track.id)
        return followed is not None and not followed.identity.due(math.inf)

    def identity_lost(self, track: Track) -> None:
        """An answer will not come."""
        followed = self._followed.get(track.id)
        if followed is not None:
            followed.identity.lost()

    # --- inside ---

    def _leave(self, flight: Flight, now: float) -> None:
        """Take the oldest flight out of the line: its picture is the next to be shown, unless a newer one has been."""
        del self.flights[flight.frame.seq]
        flight.overtaken = flight.frame.seq < self.shown_seq
        self.shown_seq = max(self.shown_seq, flight.frame.seq)
        self._published = True
        if not flight.rested:
            self._late = flight.overtaken and self._patience.is_too_long(now - flight.received)
            self._waits_since = next((other.received for other in self.flights.values() if not other.rested), None)

    def _unlooked(self, flight: Flight, now: float, sender: str) -> Result:
        result = self._result(flight, now, sender, analysed=False, faces=())
        return result.model_copy(update={"quiet": True}) if flight.rested else result

    def _media_s(self, frame: Frame) -> float:
        flight = self.flights.get(frame.seq)
        return self._time.of(frame) if flight is None else flight.at_s

    def _rescale(self, fx: float, fy: float) -> None:
        """The pictures that are published have another size."""
        self.naming.rescale(fx, fy)
        for followed in self._followed.values():
            if followed.size is not None:
                followed.size = followed.size[0] * fx, followed.size[1] * fy

    def _forget_people(self) -> None:
        self._tracker = Tracker(self._new_track, alike=self._recall.alike)
        self._followed.clear()
        self.naming.clear()

    def _face(
        self, flight: Flight, face: int, track: Track, followed: Followed, identity: Identity, at_s: float
    ) -> Face:
        detected = flight.detected
        assert detected is not None
        own = flight.probabilities.get(face)
        look = followed.smoother.update(at_s, own, detected.finding.reasons[face])
        landmarks = tuple(map(tuple, detected.landmarks[face].tolist()))
        box = self._calm(flight.frame, followed, detected.boxes[face].tolist(), at_s)
        return Face(
            track=track.id,
            box=_inside(box, flight.frame.width, flight.frame.height),
            score=min(1.0, max(0.0, float(detected.scores[face]))),
            landmarks=landmarks,  # type: ignore[arg-type]  # five by the shape of the array
            identity=identity,
            expression=_expression(look, own),
        )

    def _calm(self, frame: Frame, followed: Followed, box: list[float], at_s: float) -> list[float]:
        """The box, its size averaged over a tenth of a second: close looks and full ones differ by a few percent."""
        if frame.still or frame.every_frame or not self._attention.close:
            return box
        x, y, width, height = box
        gap_s = at_s - followed.sized_s
        if followed.size is not None and 0 <= gap_s < 1:
            old = math.exp(-gap_s / CALM_S)
            x, y = x + width / 2, y + height / 2
            width = old * followed.size[0] + (1 - old) * width
            height = old * followed.size[1] + (1 - old) * height
            x, y = x - width / 2, y - height / 2
        followed.size, followed.sized_s = (width, height), at_s
        return [x, y, width, height]

    def _result(self, flight: Flight, now: float, sender: str, *, analysed: bool, faces: tuple[Face, ...]) -> Result:
        frame = flight.frame
        return Result(
            sender=sender,
            camera=frame.camera,
            run=frame.run,
            seq=frame.seq,
            captured_at=frame.captured_at,
            width=frame.width,
            height=frame.height,
            analysed=analysed,
            latency_ms=clock.latency_ms(frame.clock, frame.age_ms, flight.received, now),
            timings_ms=flight.timings,
            media_time_s=frame.media_time_s,
            name=frame.name,
            following=self.naming.following,
            faces=faces,
        )


def _inside(box: Sequence[float], width: int, height: int) -> Box:
    """The box clipped to the picture in double precision: x + w of single floats may round to just beyond the edge."""
    x, y, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
    return x, y, max(min(right, width) - x, 0.0), max(min(bottom, height) - y, 0.0)


def _growth(before: tuple[int, int] | None, frame: Frame) -> tuple[float, float] | None:
    """By how much a frame is wider and higher than the pictures before it; None: it has their size."""
    if before in (None, (frame.width, frame.height)):
        return None
    return frame.width / before[0], frame.height / before[1]


def _box(row: Floats) -> Box:
    return float(row[0]), float(row[1]), float(row[2]), float(row[3])


def _probabilities(values: NDArray[Any]) -> Probabilities:
    return Probabilities(**dict(zip(EXPRESSIONS, values.clip(0.0, 1.0).tolist(), strict=True)))


def _expression(look: Look, own: Floats | None) -> Expression:
    return Expression(
        status=look.status,
        reason=look.reason,
        label=look.label,
        confidence=None if look.confidence is None else min(1.0, look.confidence),
        probabilities=None if own is None else _probabilities(own),
        smoothed=None if look.smoothed is None else _probabilities(look.smoothed),
    )
