"""Enrolling somebody in view: gathers good, different crops of a track, from the front and from both sides. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.messages import Enrolling
from common.recall import Enrolment

WANTED = 5  # crops …
COLLECT_S = 12.0  # … and how long they are waited for
ANSWER_S = 20.0  # pictures or not: whoever asked gives up after 25 s, and must not find somebody enrolled later
EVERY_S = 0.4  # between two looks
DIFFERENT = 0.12  # distance of two crops from which the second one adds something
MIN_CROP = 0.5  # quality of a crop that enrols
SIDEWAYS = 0.16  # of a quarter turn, from which a head is turned to a side

_NO_CROP = "no good crop of this face came: let it be larger, sharper and turned to the camera"
_NO_PICTURES = "the camera gave no pictures: is it paused, or lost?"

Side = Literal["front", "left", "right"]
MOST: dict[Side, int] = {"front": 3, "left": 2, "right": 2}  # crops of one side

Floats = NDArray[np.float32]
Apart = Callable[[Floats, Floats], float]  # two embeddings → their distance


class Collecting:
    """The crops of one enrolment."""

    def __init__(self, order: Enrolment, track: int, until_s: float, apart: Apart) -> None:
        self.order = order
        self.track = track
        self.until_s = until_s
        self._apart = apart
        self.next_s = -1e18
        self.answer_by = math.inf  # monotonic seconds; set by the first tick
        self.had_pictures = False
        self._of: dict[Side, int] = dict.fromkeys(MOST, 0)

    def take(self, embedding: Floats, chip: NDArray[np.uint8], quality: float, turn: float) -> None:
        """Keep a crop if it is good and shows something new; ``turn`` is -1 … 1, to the person's right … left."""
        side: Side = "front" if abs(turn) < SIDEWAYS else "left" if turn > 0 else "right"
        looks = self.order.looks
        near = min((self._apart(embedding, other) for other, _, _ in looks), default=1.0)
        if quality >= MIN_CROP and near >= DIFFERENT and self._of[side] < MOST[side]:
            self._of[side] += 1
            looks.append((embedding.copy(), chip.copy(), quality))

    @property
    def missing(self) -> Side | None:
        """The side of which there is nothing yet."""
        return next((side for side, count in self._of.items() if not count), None)

    @property
    def complete(self) -> bool:
        """Whether there are enough crops, of all sides."""
        return len(self.order.looks) >= WANTED and self.missing is None

    def progress(self) -> Enrolling:
        """Return how far it is, and where the head should turn."""
        have = len(self.order.looks)
        return Enrolling(
            track=self.track, pictures=have, wanted=max(WANTED, have + bool(self.missing)), turn=self.missing
        )


class Collector:
    """All enrolments that are under way on one camera. Times are media time, seconds, but for those of ``tick``.

    Args:
        done: takes an enrolment whose crops are there.
        apart: measures the distance of two embeddings.

    Attributes:
        failed: enrolments of which nothing came: request, and why.
    """

    def __init__(self, done: Callable[[Enrolment], None], apart: Apart | None = None) -> None:
        self.failed: deque[tuple[str, str]] = deque()
        self._done = done
        self._apart = apart or _distance
        self._open: list[Collecting] = []

    def begin(self, order: Enrolment, track: int, at_s: float) -> None:
        """Gather crops of a track."""
        self._open.append(Collecting(order, track, at_s + COLLECT_S, self._apart))

    def wants(self, track: int, at_s: float) -> bool:
        """Whether a look at a track is wanted now."""
        return any(c.track == track and at_s >= c.next_s for c in self._open)

    def asked(self, track: int, at_s: float) -> None:
        """A look at a track is under way."""
        for collecting in self._open:
            if collecting.track == track:
                collecting.next_s = at_s + EVERY_S

    def looked(self, track: int, embedding: Floats, chip: NDArray[np.uint8], quality: float, turn: float) -> None:
        """A crop of a track has come: embedding (128,), chip (150, 150, 3) uint8 RGB."""
        for collecting in [c for c in self._open if c.track == track]:
            collecting.take(embedding, chip, quality, turn)
            if collecting.complete:
                self._open.remove(collecting)
                self._done(collecting.order)

    def ended(self, track: int) -> None:
        """A track has ended: its enrolments have all that they will get."""
        self._open = [c for c in self._open if c.track != track or self._settle(c)]

    def expire(self, at_s: float) -> None:
        """A picture has come: settle what has waited for long enough."""
        for collecting in self._open:
            collecting.had_pictures = True
        self._open = [c for c in self._open if at_s < c.until_s or self._settle(c)]

    def tick(self, now: float) -> None:
        """The same by the clock, monotonic seconds: media time stands still while a camera gives no pictures."""
        for collecting in self._open:
            collecting.answer_by = min(collecting.answer_by, now + ANSWER_S)
        late = {c: _NO_CROP if c.had_pictures else _NO_PICTURES for c in self._open if now >= c.answer_by}
        self._open = [c for c in self._open if c not in late or self._settle(c, late[c])]

    def progress(self) -> Enrolling | None:
        """Return how far the newest enrolment is, None when none is under way."""
        return self._open[-1].progress() if self._open else None

    def _settle(self, collecting: Collecting, why: str = _NO_CROP) -> bool:
        """Enrol with what there is, or say why there is nothing; returns False."""
        if collecting.order.looks:
            self._done(collecting.order)
        else:
            self.failed.append((collecting.order.request, why))
        return False


def _distance(one: Floats, other: Floats) -> float:
    return float(np.linalg.norm(one - other))
