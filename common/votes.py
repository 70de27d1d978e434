"""Who a track is: when to look, what the looks say together, and whether they are of one person at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.messages import Identity

SAME_PERSON = 0.6  # distance of two embeddings up to which they are taken for one person's (face_recognition's figure)
OTHER_PERSON = 0.75  # from here on they are certainly not; between the two nothing is said
BETTER = 1.3  # a crop this much better than the best so far is worth a look out of turn
LOOK_AGAIN_S = 0.5  # after a crossing, and at least between two looks at better crops


@dataclass(frozen=True, slots=True)
class Match:
    """The nearest enrolled person to an embedding."""

    person: int
    name: str
    distance: float
    confidence: float


Matcher = Callable[[NDArray[np.float32]], Match | None]  # (128,) → nearest person, None if nobody is near enough


class TrackIdentity:
    """The identity of one track over time; time is media time, seconds.

    Args:
        intervals_s: pauses between looks, the last one repeats.
        match: finds the nearest enrolled person.
    """

    def __init__(self, intervals_s: tuple[float, ...], match: Matcher) -> None:
        self.identity = Identity(status="pending")
        self._intervals_s = intervals_s
        self._match = match
        self._looks = 0
        self._next_at = -math.inf
        self._asked_at = -math.inf
        self._open = False
        self._best_quality = 0.0
        self._mean: NDArray[np.float64] | None = None
        self._weight = 0.0

    def due(self, at_s: float, *, quality: float | None = None, crossed: bool = False) -> bool:
        """Whether a look is worth its price now: ``quality`` is that of the crop at hand (0..1), if there is one."""
        if self._open:
            return False
        if at_s >= self._next_at:
            return True
        if at_s - self._asked_at < LOOK_AGAIN_S:
            return False
        return crossed or (quality is not None and quality > BETTER * self._best_quality)

    def asked(self, at_s: float, quality: float) -> None:
        """A look is under way."""
        self._open = True
        self._asked_at = at_s
        if at_s >= self._next_at:
            pause = self._intervals_s[min(self._looks, len(self._intervals_s) - 1)]
            self._next_at = at_s + pause
            self._looks += 1
        self._best_quality = max(self._best_quality, quality)

    def lost(self) -> None:
        """The answer will not come: look again at the next chance."""
        self._open = False
        self._next_at = -math.inf

    def answered(self, embedding: NDArray[np.float32], quality: float) -> bool:
        """Take an embedding (128,). Returns False if it is of another person than the track's looks so far."""
        self._open = False
        if self._mean is not None and float(np.linalg.norm(self._mean - embedding)) > OTHER_PERSON:
            return False
        weight = max(quality, 0.05)
        if self._mean is None:
            self._mean = embedding.astype(np.float64)
        else:
            self._mean = self._mean + (embedding - self._mean) * (weight / (self._weight + weight))
        self._weight = min(self._weight + weight, 5.0)  # bounded, so that a face that ages into view still moves it
        match = self._match(self._mean.astype(np.float32))
        if match is None:
            self.identity = Identity(status="unknown")
        else:
            self.identity = Identity(
                status="known",
                person=match.person,
                name=match.name,
                distance=match.distance,
                confidence=match.confidence,
            )
        return True


def nobody(embedding: NDArray[np.float32]) -> Match | None:
    """Match nothing: the gallery is empty."""
    return None
