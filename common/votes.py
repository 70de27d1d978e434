"""Who a track is: when to look, what the looks say together, and whether they are of one person at all. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.gallery import Candidate, Verdict
from common.messages import Identity

OTHER_PERSON = 0.75  # a look so far from those before is certainly of another person
DOUBTFUL = 0.6  # … one as far as this if the next says so, too: hardly a good crop of the same person is
ALIKE = 0.45  # a look so near to those before is of the same person, whatever it resembles
BETTER = 1.3  # a crop this much better than the best so far is worth a look out of turn …
EARLY_S = 5.0  # … in the first seconds of a track …
EARLY_LOOKS = 3  # … as long as there were fewer looks than this
LOOK_AGAIN_S = 0.5  # after a crossing, and at least between two looks at better crops
SOLID = 0.25  # quality from which one look may decide by itself
HOLD = -0.08  # a name once said is kept down to this score, so that it does not flicker
AGREEING = 2  # looks in a row that it takes to change a mind, or to decide on poor crops
PATIENCE = 3  # looks after which a face that is nobody's for certain, but near somebody's, counts as unknown

Floats = NDArray[np.float32]
Recogniser = Callable[[Floats], Verdict]  # (128,) → the nearest enrolled people
Apart = Callable[[NDArray[np.float64], Floats], float]  # two embeddings → their distance


@dataclass(frozen=True, slots=True)
class Summary:
    """What a track's looks amount to: the weighted mean embedding, (128,), and the best quality among them."""

    embedding: Floats
    quality: float
    looks: int


class TrackIdentity:
    """The identity of one track over time; time is media time, seconds.

    Each look moves the weighted mean of the track's embeddings (good crops count more), and the mean is judged against
    the gallery: a vote in which every look has its say.

    Args:
        intervals_s: pauses between looks, the last one repeats.
        recognise: finds the nearest enrolled people.
        apart: measures the distance of two embeddings.

    Attributes:
        identity: what is said of the track.
        withheld: it is somebody of whom nothing may be said or kept.
    """

    def __init__(self, intervals_s: tuple[float, ...], recognise: Recogniser, apart: Apart | None = None) -> None:
        self.identity = Identity(status="pending")
        self.withheld = False
        self._intervals_s = intervals_s
        self._recognise = recognise
        self._apart = apart or distance
        self._asked = 0
        self._first_at: float | None = None
        self._next_at = -math.inf
        self._asked_at = -math.inf
        self._open = False
        self._best_asked = self._best_asked_before = 0.0  # quality of the looks asked for, and without the last one
        self._best_quality = 0.0  # … of those that are in the mean
        self._mean: NDArray[np.float64] | None = None
        self._weight = 0.0
        self._looks = 0
        self._doubted: Floats | None = None  # the last look, if it seemed to be of another person
        self._held: int | None = None  # the person that it is taken for, also when nothing may be said of them
        self._rival: int | None = None  # who the last looks say instead; 0: nobody
        self._against = 0  # looks in a row that say so

    @property
    def held(self) -> int | None:
        """The person that it is taken for, also when nothing may be said of them."""
        return self._held

    # --- when to look ---

    def due(self, at_s: float, *, quality: float = 0.0, crossed: bool = False) -> bool:
        """Whether a look is worth its price now, at a crop of this quality (0..1)."""
        if self._open:
            return False
        if at_s >= self._next_at:
            return True
        if at_s - self._asked_at < LOOK_AGAIN_S:
            return False
        early = self._first_at is not None and at_s - self._first_at < EARLY_S and self._asked < EARLY_LOOKS
        return crossed or (early and quality > BETTER * self._best_asked)

    def asked(self, at_s: float, quality: float) -> None:
        """A look is under way."""
        self._open = True
        self._asked_at = at_s
        if self._first_at is None:
            self._first_at = at_s
        # A look out of turn takes the place of the next one in turn: a track costs so much and no more.
        self._next_at = at_s + self._intervals_s[min(self._asked, len(self._intervals_s) - 1)]
        self._asked += 1
        self._best_asked_before, self._best_asked = self._best_asked, max(self._best_asked, quality)

    def lost(self) -> None:
        """The answer will not come: look again at the next chance."""
        self._open = False
        self._next_at = -math.inf
        self._asked = max(0, self._asked - 1)
        self._best_asked = self._best_asked_before

    # --- what the looks say ---

    def answered(self, embedding: Floats, quality: float) -> bool:
        """Take an embedding (128,). Returns False if it is of another person than the track's looks so far.

        In the mean of many looks somebody who has taken another's place would go unnoticed for a minute. So a good
        crop that does not fit them is not averaged in, but looked at again soon; two that agree are another person's.
        """
        self._open = False
        if self._mean is not None:
            gap = self._apart(self._mean, embedding)
            if gap > OTHER_PERSON:
                return False
            if quality >= SOLID and self._seems_another(embedding, gap):
                if self._doubted is not None and self._apart(self._doubted.astype(np.float64), embedding) < gap:
                    return False
                self._doubted = embedding
                self._next_at = min(self._next_at, self._asked_at + LOOK_AGAIN_S)
                return True
            self._doubted = None
        weight = max(quality, 0.05)
        if self._mean is None:
            self._mean = embedding.astype(np.float64)
        else:
            self._mean = self._mean + (embedding - self._mean) * (weight / (self._weight + weight))
        self._weight = min(self._weight + weight, 5.0)  # bounded, so that a face that ages into view still moves it
        self._looks += 1
        self._best_quality = max(self._best_quality, quality)
        self._judge()
        return True

    def reconsider(self, gone: frozenset[int] = frozenset()) -> bool:
        """The gallery has changed: judge again by the looks there were, as if it had always been so.

        Args:
            gone: people who are forgotten. A track that was one of them forgets its looks, too.

        Returns:
            Whether it has forgotten and begins anew.
        """
        forgets, was = self._held in gone, self._held
        was_nobody = self.identity.status == "unknown" and not self.identity.withheld
        self._held, self._rival, self._against = None, None, 0
        self.withheld = False
        self.identity = Identity(status="pending")
        if forgets:
            self._mean, self._weight, self._looks, self._best_quality = None, 0.0, 0, 0.0
            self._best_asked = self._best_asked_before = 0.0
            self._doubted = None
            self._next_at = -math.inf
        elif self._mean is not None:
            verdict = self._judge()
            held = None if was is None else verdict.of(was)
            # A name is not lost because something else has changed: it is kept as long as between two looks.
            if self._held is None and held is not None and held.score >= HOLD:
                self._say(held)
            elif self.identity.status == "pending" and was_nobody:  # nor is it in doubt again who was nobody's
                self._say_unknown()
        return forgets

    def summary(self) -> Summary | None:
        """Return what the looks amount to, None before the first one."""
        if self._mean is None:
            return None
        return Summary(self._mean.astype(np.float32), self._best_quality, self._looks)

    # --- inside ---

    def _seems_another(self, embedding: Floats, gap: float) -> bool:
        """Whether a look alone, so far from the others, is of another person."""
        if self._best_quality < SOLID:
            return False  # nothing certain to compare it with
        if gap > DOUBTFUL:
            return True
        if self._held is None or gap < ALIKE:
            return False
        verdict = self._recognise(embedding)
        best, held = verdict.best, verdict.of(self._held)
        names = best is not None and verdict.clear and best.score >= 0 and best.person != self._held
        return names and (held is None or held.score < HOLD)

    def _judge(self) -> Verdict:
        assert self._mean is not None
        verdict = self._recognise(self._mean.astype(np.float32))
        best = verdict.best
        held = None if self._held is None else verdict.of(self._held)
        near = best is not None and best.score >= 0
        named = best if near and verdict.clear else None
        if held is not None and held.score >= HOLD and (named is None or named.person == held.person):
            self._against, self._rival = 0, None
            self._say(held)
        elif self._held is not None:
            self._doubt(named)
        elif named is not None:
            # A good crop decides at once; a poor one needs another that agrees.
            if self._best_quality >= SOLID or self._agrees(named.person):
                self._say(named)
        elif best is None or best.score < HOLD:
            if self._best_quality >= SOLID or self._agrees(0):
                self._say_unknown()
        elif self._looks >= PATIENCE and not near:
            self._say_unknown()
        return verdict

    def _doubt(self, named: Candidate | None) -> None:
        """The looks do not say any more what is said of the track: change that when they go on so."""
        if not self._agrees(0 if named is None else named.person):
            return
        if named is None:
            self._say_unknown()
        else:
            self._say(named)

    def _agrees(self, person: int) -> bool:
        self._against = self._against + 1 if self._rival == person else 1
        self._rival = person
        return self._against >= AGREEING

    def _say(self, candidate: Candidate) -> None:
        self._held, self.withheld = candidate.person, candidate.withheld
        self._rival, self._against = None, 0
        if candidate.withheld:
            self.identity = Identity(status="unknown", withheld=True)
            return
        self.identity = Identity(
            status="known",
            person=candidate.person,
            name=candidate.name,
            distance=candidate.distance,
            confidence=candidate.confidence,
        )

    def _say_unknown(self) -> None:
        self._held, self.withheld = None, False
        self._rival, self._against = None, 0
        self.identity = Identity(status="unknown")


def distance(one: NDArray[np.float64], other: Floats) -> float:
    """Return the distance of two embeddings."""
    return float(np.linalg.norm(one - other))


def nobody(embedding: Floats) -> Verdict:
    """Recognise nobody: the gallery is empty."""
    return Verdict()
