"""Which face of this frame is which face of the last one. Pure; time is media time.

Position leads, appearance decides: a track is continued by the detection nearest to where it was going, if that looks
like the same person. Where two tracks could claim one detection and looks do not tell them apart, neither gets it: a
new id is a small loss, an id that moves to another person is a wrong name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.messages import MAX_FACES, Box

Floats = NDArray[np.float32]

AWAY_S = 0.5  # out of sight for longer: its look decides, not its place, and it proves who it is
LOOKS_EVERY_S = 1.0  # looks farther apart than this leave time in which nobody looked
SUDDEN = 0.08  # less alike by this than usual: more than half of all pairs of people are alike enough to be continued
BASELINE_S = 0.02  # pictures that were held up come within a millisecond: their times say nothing of how fast a face is
MAX_TRACKS = 4 * MAX_FACES  # alive; more come only of faces that are new in every frame
FEW = 16  # so many pairs are looked through more quickly one by one than sorted out by arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingLimits:
    """What the tracker goes by; lengths are in face sizes (square root of the box's area).

    Attributes:
        birth_score: a detection needs this score to begin a track; weaker ones only continue one.
        lost_s: a track unseen this long has ended …
        blind_s: … not counting up to so much time in which nobody looked: a process was being replaced.
        reach: how far from where it was expected a track may be found again …
        reach_per_s: … and how much farther for each second unseen.
        growth: largest change of size between two sightings, as a ratio.
        alike: appearance similarity (cosine) below which a nearby detection is somebody else.
        alike_again: the same after a gap, when position says less.
        clearly: lead in appearance that settles between two tracks.
        looks: weight of appearance against position where several tracks could go on with several faces.
    """

    birth_score: float = 0.5
    lost_s: float = 3.0
    blind_s: float = 12.0
    reach: float = 0.75
    reach_per_s: float = 1.0
    growth: float = 1.6
    alike: float = 0.5
    alike_again: float = 0.75
    clearly: float = 0.1
    looks: float = 5.0


@dataclass(slots=True, eq=False)
class Track:
    """One face followed over time.

    Attributes:
        id: lasting; never used twice.
        box: x, y, width, height when last seen, pixels; plain numbers: for so few they are quicker than arrays.
        born_s, seen_s: media time of the first and the last sighting.
        sightings: frames in which it was seen.
        crossed: it has been so near another track that the two could have been mistaken; whoever keeps proof of who
            this is should ask again and then set it back. Also where it was out of sight for a while, or suddenly
            looked less like itself than it usually does: after a cut somebody else may be in its place.
    """

    id: int
    box: Box
    born_s: float
    seen_s: float
    appearance: Floats  # (D,), unit length
    sightings: int = 1
    crossed: bool = False
    blind_s: float = 0.0  # since the last sighting, time in which nobody looked
    velocity: tuple[float, float] = (0.0, 0.0)  # pixels per second, of the centre
    measured: tuple[Box, float] | None = None  # where and when it was as its velocity was last measured
    usual: float = 1.0  # how alike it is to itself from one sighting to the next

    def expected(self, at_s: float) -> Box:
        """Return the box where the face should be at a time; the motion is trusted for half a second."""
        x, y, width, height = self.box
        passed_s = min(max(at_s - self.seen_s, 0.0), 0.5)
        return x + self.velocity[0] * passed_s, y + self.velocity[1] * passed_s, width, height


@dataclass(slots=True)
class _Place:
    """A box as numbers: corners, centre, area, the side of a square of that area, and its longer side."""

    x: float
    y: float
    right: float
    bottom: float
    cx: float
    cy: float
    area: float
    size: float
    longest: float

    @classmethod
    def of(cls, box: Box) -> _Place:
        x, y, width, height = box
        area = max(width * height, 1e-6)
        middle = x + width / 2, y + height / 2
        return cls(x, y, x + width, y + height, *middle, area, math.sqrt(area), max(width, height))

    def iou(self, other: _Place) -> float:
        width = min(self.right, other.right) - max(self.x, other.x)
        height = min(self.bottom, other.bottom) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area + other.area - width * height)


@dataclass(slots=True)
class _Sought:
    """Where a track is looked for: where it should be, and how far around; and where it was, if a moment ago."""

    expected: _Place
    last: _Place | None
    unseen_s: float
    reach: float


@dataclass(slots=True)
class _Pair:
    score: float
    alike: float


class Tracker:
    """The tracks of one camera.

    Args:
        new_id: gives the next id.
        alike: says how alike two appearances are, (D,) of unit length each.
    """

    def __init__(
        self,
        new_id: Callable[[], int] | None = None,
        limits: TrackingLimits | None = None,
        *,
        alike: Callable[[Floats, Floats], float] | None = None,
    ) -> None:
        self._new_id = new_id or itertools.count(1).__next__
        self._limits = limits or TrackingLimits()
        self._alike = alike or _cosine
        self.tracks: list[Track] = []  # alive, also those not seen at the moment
        self._looked_s: float | None = None

    def update(
        self, at_s: float, boxes: Floats, scores: Floats, appearances: Floats
    ) -> tuple[list[Track | None], list[Track]]:
        """Take one frame's detections.

        Args:
            at_s: media time, seconds.
            boxes: (N, 4) float32, x, y, width, height in pixels.
            scores: (N,) float32.
            appearances: (N, D) float32, unit length.

        Returns:
            For each detection its track (None: too weak to begin one), and the tracks that have ended.
        """
        limits = self._limits
        self._note_blindness(at_s)
        ended = [track for track in self.tracks if at_s - track.seen_s - track.blind_s > limits.lost_s]
        self.tracks = [track for track in self.tracks if at_s - track.seen_s - track.blind_s <= limits.lost_s]
        found: list[Track | None] = [None] * len(boxes)
        places: list[Box] = [(x, y, width, height) for x, y, width, height in boxes.tolist()]
        for index, track, alike in self._match(at_s, places, appearances):
            found[index] = track
            self._continue(track, at_s, places[index], appearances[index], alike)
        for index, place in enumerate(places):
            if found[index] is None and scores[index] >= limits.birth_score:
                track = Track(self._new_id(), place, at_s, at_s, appearances[index].copy())
                self.tracks.append(track)
                found[index] = track
        ended += self._end_surplus(at_s)
        self._note_crossings(at_s)
        return found, ended

    def rescale(self, factor_x: float, factor_y: float) -> None:
        """The camera's pictures have another size: take every track there, and have it prove who it is.

        Args:
            factor_x: the new width by the old one.
            factor_y: the new height by the old one.
        """

        def scaled(box: Box) -> Box:
            return box[0] * factor_x, box[1] * factor_y, box[2] * factor_x, box[3] * factor_y

        for track in self.tracks:
            track.box = scaled(track.box)
            track.velocity = track.velocity[0] * factor_x, track.velocity[1] * factor_y
            if track.measured is not None:
                track.measured = scaled(track.measured[0]), track.measured[1]
            track.crossed = True

    def _note_blindness(self, at_s: float) -> None:
        """Time in which nobody looked ends no track; but whoever is there afterwards has to prove who it is."""
        unlooked_s = 0.0 if self._looked_s is None else at_s - self._looked_s - LOOKS_EVERY_S
        self._looked_s = at_s
        if unlooked_s <= 0:
            return
        for track in self.tracks:
            track.blind_s = min(track.blind_s + unlooked_s, self._limits.blind_s)
            track.crossed = True

    def _match(self, at_s: float, boxes: Sequence[Box], appearances: Floats) -> list[tuple[int, Track, float]]:
        """Which detection, by its index, goes on with which track, and how alike they are."""
        limits, tracks = self._limits, self.tracks
        pairs: dict[tuple[int, int], _Pair] = {}  # (track, detection), where the one may go on with the other
        found = [_Place.of(box) for box in boxes]
        sought = [self._sought(track, at_s) for track in tracks]
        for row, column in _close(sought, found):
            place, track = found[column], sought[row]
            apart = math.hypot(place.cx - track.expected.cx, place.cy - track.expected.cy)
            distance = apart / max(math.sqrt(place.size * track.expected.size), 1.0)
            # It may also be where it was: it has stopped, or its speed was misjudged.
            stays = track.last is not None and track.last.iou(place) >= 0.5
            if distance > track.reach and apart > max(place.longest, track.expected.longest) and not stays:
                continue  # most pairs: far apart
            growth = max(place.size / track.expected.size, track.expected.size / place.size)
            is_near = (distance <= track.reach or stays) and growth <= limits.growth + 0.3 * track.unseen_s
            overlap = track.expected.iou(place)
            # A face where its track left it a moment ago is that face, even behind a hand that changes its look.
            is_there = overlap >= 0.5 and track.unseen_s <= AWAY_S
            if not (is_near or is_there):
                continue
            wanted = limits.alike_again if track.unseen_s > AWAY_S else limits.alike
            alike = self._alike(tracks[row].appearance, appearances[column])
            if (is_near and alike >= wanted) or (is_there and alike >= limits.alike - 0.3):
                pairs[row, column] = _Pair(overlap + (1.0 - distance / track.reach) + limits.looks * alike, alike)
        chosen: dict[int, int] = {}  # track: detection
        taken: set[int] = set()
        for row, column in sorted(pairs, key=lambda pair: (-pairs[pair].score, pair)):
            if row not in chosen and column not in taken:
                chosen[row] = column
                taken.add(column)
        settled: list[tuple[int, Track, float]] = []
        for row, column in chosen.items():
            pair = pairs[row, column]
            rivals = (
                rival
                for (other, contested), rival in pairs.items()
                # Who was seen since the other was lost goes on; in doubt are only two who were there at the same time.
                if contested == column
                and other not in chosen
                and pair.score - rival.score < 0.5
                and tracks[other].seen_s >= tracks[row].seen_s
            )
            if all(pair.alike - rival.alike >= limits.clearly for rival in rivals):
                settled.append((column, tracks[row], pair.alike))
        return settled

    def _sought(self, track: Track, at_s: float) -> _Sought:
        unseen_s = min(at_s - track.seen_s, self._limits.lost_s)
        reach = self._limits.reach + self._limits.reach_per_s * max(unseen_s - 0.1, 0.0)
        last = _Place.of(track.box) if unseen_s <= AWAY_S else None
        return _Sought(_Place.of(track.expected(at_s)), last, unseen_s, reach)

    def _continue(self, track: Track, at_s: float, box: Box, appearance: Floats, alike: float) -> None:
        before, before_s = track.measured or (track.box, track.seen_s)
        seconds = at_s - before_s
        if seconds >= BASELINE_S:
            trust = 0.5 if seconds < 0.5 else 1.0
            right, down = track.velocity
            moved_right = (box[0] + box[2] / 2 - before[0] - before[2] / 2) / seconds
            moved_down = (box[1] + box[3] / 2 - before[1] - before[3] / 2) / seconds
            track.velocity = right + trust * (moved_right - right), down + trust * (moved_down - down)
            before, before_s = box, at_s
        track.measured = before, before_s
        if at_s - track.seen_s > AWAY_S or alike < track.usual - SUDDEN:
            track.crossed = True  # somebody else may have taken its place
        track.usual += 0.1 * (alike - track.usual)  # a camera that is always noisy is not looked at all the time
        track.box = box
        track.seen_s, track.blind_s = at_s, 0.0
        track.sightings += 1
        blended = 0.9 * track.appearance + 0.1 * appearance
        track.appearance = (blended / max(math.sqrt(float(blended @ blended)), 1e-6)).astype(np.float32)

    def _end_surplus(self, at_s: float) -> list[Track]:
        """End tracks out of sight where there are too many: those hardly seen soon, then those longest unseen.

        Where a picture moves so fast that no face is found again, every frame leaves a track behind for each face.
        """
        if len(self.tracks) <= MAX_FACES:
            return []
        away = sorted(
            (track for track in self.tracks if track.seen_s < at_s),
            key=lambda track: (track.sightings > 2, track.seen_s),
        )
        surplus = len(self.tracks) - MAX_TRACKS
        ended = [
            track
            for place, track in enumerate(away)
            if place < surplus or (track.sightings <= 2 and at_s - track.seen_s - track.blind_s > AWAY_S)
        ]
        gone = {track.id for track in ended}
        self.tracks = [track for track in self.tracks if track.id not in gone]
        return ended

    def _note_crossings(self, at_s: float) -> None:
        recent = [track for track in self.tracks if at_s - track.seen_s <= AWAY_S]
        if len(recent) < 2:
            return
        boxes = np.array([track.expected(at_s) for track in recent], np.float32)
        crossing = iou(boxes, boxes) > 0.2
        np.fill_diagonal(crossing, False)
        for index in np.flatnonzero(crossing.any(axis=1)):
            recent[index].crossed = True

    def end(self, track: Track) -> None:
        """End a track at once: it turned out to be somebody else."""
        self.tracks.remove(track)


def _close(sought: Sequence[_Sought], found: Sequence[_Place]) -> Iterable[tuple[int, int]]:
    """Which pairs of a track and a detection, by their indices, are near enough to be looked at more closely."""
    if len(sought) * len(found) <= FEW:
        return itertools.product(range(len(sought)), range(len(found)))
    x, y, size, longest = _numbers(found)
    to_x, to_y, to_size, to_longest = _numbers([one.expected for one in sought])[:, :, None]
    reach = np.array([one.reach for one in sought])[:, None] * np.maximum(np.sqrt(size * to_size), 1.0)
    near = np.hypot(x - to_x, y - to_y) <= np.maximum(reach, np.maximum(longest, to_longest))
    to_x, to_y, _, to_longest = _numbers([one.last or one.expected for one in sought])[:, :, None]
    near |= np.hypot(x - to_x, y - to_y) <= np.maximum(longest, to_longest)
    return zip(*(indices.tolist() for indices in near.nonzero()), strict=True)


def _numbers(places: Sequence[_Place]) -> NDArray[np.float64]:
    """Centres, sizes and longer sides of N places: (4, N)."""
    return np.array([(place.cx, place.cy, place.size, place.longest) for place in places]).T


def _cosine(one: Floats, other: Floats) -> float:
    return float(one @ other)


def near_known(boxes: Floats, known: Floats) -> NDArray[np.bool_]:
    """Which faces (N, 4), x, y, w, h, stand where one of the known ones (K, 4) was expected: (N,)."""
    if not len(known):
        return np.zeros(len(boxes), np.bool_)
    return np.asarray(iou(boxes, known).max(axis=1) > 0.3)


def iou(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of every box with every other: (N, 4) and (M, 4), x, y, w, h → (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    inside = np.clip(high - low, 0, None).prod(axis=2, dtype=np.float32)
    areas = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1)[None]
    overlap: Floats = (inside / np.maximum(areas - inside, np.float32(1e-6))).astype(np.float32)
    return overlap
