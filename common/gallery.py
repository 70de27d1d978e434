"""The gallery: the enrolled people in memory, and who of them an embedding is nearest to. Pure; exact.

One distance does not serve every kind of picture: portraits of one photographer, grey and cut tight, lie closer
together than snapshots in colour, for the same and for different people alike. So a distance is judged by how far the
same face is from *other* people (the cohort): the mean of the query's distances to other enrolled people and of theirs
to the candidate (score normalisation from both sides, "S-norm"; Shum et al., 2010, for speakers). With few people
enrolled the cohort is filled up with what is usual for this network on photographs.

Nor are all faces equally easy to tell apart: who is enrolled must also be nearer than the nearest of people in general
(``models.background``), which matters most where few are enrolled and there is no second-best to compare with.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.index import Index, available
from models import background

Floats = NDArray[np.float32]

DIMENSIONS = 128
USUAL_APART = 0.80  # mean distance of two people's faces; measured on the sample photographs (bench/identity.py)
USUAL_WEIGHT = 2  # for how many people of the cohort that figure counts
COHORT = 512  # references that stand for all others; more would not change the mean
COARSE = 48  # dimensions of the first pass, in the order of how much the gallery varies along them
FIRST = 64  # references looked at closely at first
CLOSELY = 12  # … of which the nearest give the first idea
NEAREST = 3  # candidates a verdict names
INDEXED = 128  # references that an index proposes

log = logging.getLogger("mien.gallery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a face is somebody's.

    Attributes:
        nearer: a person is near enough when the distance is this much less than the distance to other people.
        lead: … and at most this part of the distance to the second-best person.
        crowd: … and at most this part of the distance to the nearest of people in general.
    """

    nearer: float = 0.235
    lead: float = 0.92
    crowd: float = 0.83


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """An enrolled person: ``withheld`` people (no consent) are recognised so that nothing is said or kept of them, and
    so are others from ``until`` on (unix seconds).
    """

    person: int
    name: str
    embeddings: Floats  # (R, 128)
    withheld: bool = False
    until: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person, and how near an embedding is.

    Attributes:
        distance: to their references.
        score: 1 at no distance, 0 where near enough ends.
        apart: how far the same face is from other people.
        crowd: how far from the nearest of people in general.
    """

    person: int
    name: str
    withheld: bool
    distance: float
    score: float
    apart: float = USUAL_APART
    crowd: float = math.inf

    @property
    def confidence(self) -> float:
        """The score as a number between 0 and 1, 0.5 where near enough ends."""
        return 1.0 / (1.0 + math.exp(-12.0 * max(-50.0, self.score)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The nearest people, best first, and whether the first one leads clearly enough over the second."""

    candidates: tuple[Candidate, ...] = ()
    clear: bool = True

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None

    def of(self, person: int) -> Candidate | None:
        """Return one person's place among the nearest."""
        return next((candidate for candidate in self.candidates if candidate.person == person), None)


class Gallery:
    """Finds the enrolled person nearest to an embedding: the exact answer, unless so many are enrolled that an index is
    asked first; what that proposes is judged exactly.

    Args:
        members: enrolled people; those without references are left out.
        generation: of the store, when this was read from it.
        index_above: with more references than this an index finds those that are looked at exactly (``common.index``).
    """

    def __init__(
        self,
        members: Sequence[Member] = (),
        thresholds: Thresholds | None = None,
        *,
        generation: int = -1,
        index_above: int | None = None,
    ) -> None:
        self.generation = generation
        self.thresholds = thresholds or Thresholds()
        self.members = tuple(member for member in members if len(member.embeddings))
        counts = [len(member.embeddings) for member in self.members]
        self.references = sum(counts)
        self._begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        self._owner = np.repeat(np.arange(len(counts)), counts)
        if not self.members:
            return
        self._all = np.ascontiguousarray(np.concatenate([m.embeddings for m in self.members]), np.float32)
        if self._all.shape[1:] != (DIMENSIONS,) or not np.isfinite(self._all).all():
            raise ValueError(f"references must be finite, of shape (R, {DIMENSIONS}), got {self._all.shape}")
        self._index: Index | None = None
        if index_above is not None and self.references > index_above:
            if available():
                self._index = Index(self._all)
            else:
                log.warning("%d references without an index: pip install 'mien[index]' is quicker", self.references)
        if self._index is None:
            self._turn_all()
        pick = np.unique(np.linspace(0, self.references - 1, COHORT).astype(np.intp))
        self._cohort, self._cohort_owner = self._all[pick], self._owner[pick]
        self._apart = self._apart_of_members()
        self._crowd = np.add.reduceat(background.shipped().crowd(self._all), self._begins[:-1]) / counts
        self._most_apart = float(self._apart.max())

    @property
    def until(self) -> float:
        """When the next consent ends, unix seconds; infinite: none does."""
        return min((member.until for member in self.members if not member.withheld), default=math.inf)

    def at(self, now: float) -> Gallery:
        """Return the same people as they are at a later time: of some consent has ended."""
        later = copy.copy(self)
        later.members = tuple(replace(m, withheld=m.withheld or now >= m.until) for m in self.members)
        return later

    def recognise(self, embedding: Floats, *, without: Sequence[int] = ()) -> Verdict:
        """Return who an embedding (128,) float32 may be; ``without`` these people."""
        if not self.members:
            return Verdict()
        to_cohort = _distances(embedding, self._cohort)
        # Whoever is farther than this cannot be named, however the cohort is divided; a little more to be certain.
        far = (max(USUAL_APART, float(to_cohort.mean())) + self._most_apart) / 2 - self.thresholds.nearer + 0.03
        ranked = self._nearest(embedding, frozenset(without), far)
        if not ranked:
            return Verdict()
        crowd_here = float(background.shipped().crowd(embedding[None])[0])
        candidates = []
        for member, distance in ranked[:NEAREST]:
            others = to_cohort[self._cohort_owner != member]
            apart = (self._blend(others, len(self.members) - 1) + float(self._apart[member])) / 2
            crowd = (crowd_here + float(self._crowd[member])) / 2
            limit = min(apart - self.thresholds.nearer, self.thresholds.crowd * crowd)
            found = self.members[member]
            candidates.append(
                Candidate(
                    person=found.person,
                    name=found.name,
                    withheld=found.withheld,
                    distance=distance,
                    score=1.0 - distance / max(limit, 0.05),
                    apart=apart,
                    crowd=crowd,
                )
            )
        # The order is that of the distances: others only say whether somebody is near enough, not who is nearer.
        clear = len(ranked) < 2 or ranked[0][1] <= self.thresholds.lead * ranked[1][1]
        return Verdict(candidates=tuple(candidates), clear=clear)

    def nearest_reference(self, embedding: Floats) -> tuple[int, float]:
        """Return the row of the nearest reference, in the order of the members, and its distance."""
        if self._index is not None:
            rows = self._index.nearest(embedding, INDEXED)
            distances = _distances(embedding, self._all[rows])
            return int(rows[int(distances.argmin())]), float(distances.min())
        bound = self._bounds(embedding)
        rows = self._first(bound, FIRST)
        nearest = float(_distances(embedding, self._all[rows]).min())
        rows = np.flatnonzero(bound <= np.float32(nearest**2 + 1e-5))
        distances = _distances(embedding, self._all[rows])
        best = int(distances.argmin())
        return int(rows[best]), float(distances[best])

    # --- inside ---

    def _turn_all(self) -> None:
        """Turn all references so that their first dimensions say most: a rotation keeps every distance."""
        sample = self._all[:: max(1, self.references // 20_000)]
        centred = sample - sample.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        self._turn = np.ascontiguousarray(axes[:, ::-1].T, np.float32)  # (128, 128), rows: directions, most first
        turned = self._all @ self._turn.T
        self._coarse = np.ascontiguousarray(turned[:, :COARSE])
        rest = (turned[:, COARSE:] ** 2).sum(axis=1)
        self._rest = np.sqrt(rest)
        self._squares = (self._coarse**2).sum(axis=1) + rest

    def _bounds(self, embedding: Floats) -> Floats:
        """Return for every reference a squared distance that it has at least, (R,).

        By the inequality of Cauchy and Schwarz the dimensions left out cannot bring two vectors nearer than the
        difference of their lengths there, so that nothing is missed (tested against the plain way).
        """
        turned = self._turn @ embedding
        bound: Floats = self._coarse @ turned[:COARSE]
        bound += self._rest * np.float32(np.linalg.norm(turned[COARSE:]))
        bound *= np.float32(-2)
        bound += self._squares
        bound += np.float32(embedding @ embedding)
        return bound

    def _first(self, bound: Floats, count: int) -> NDArray[np.intp]:
        return np.argpartition(bound, count - 1)[:count] if count < self.references else np.arange(self.references)

    def _nearest(self, embedding: Floats, without: frozenset[int], far: float) -> list[tuple[int, float]]:
        """Return members and their distances (mean of the two nearest references), nearest first.

        The nearest two are certain, as far as they matter: a second one that is farther than the lead asks, and anybody
        beyond ``far``, need not be found.
        """
        found: dict[int, float] = {}
        if self._index is not None:
            self._measure(embedding, self._index.nearest(embedding, INDEXED), found, without)
            return sorted(found.items(), key=lambda entry: entry[1])
        bound = self._bounds(embedding)
        first = self._first(bound, FIRST)
        order = np.argsort(_distances(embedding, self._all[first]))
        self._measure(embedding, first[order[:CLOSELY]], found, without)
        ranked = sorted(found.values())
        matters = min(far, ranked[0] / self.thresholds.lead) if ranked else far
        # A person's distance is at least that of the nearest reference, and a reference's at least its bound.
        rows = np.flatnonzero(bound <= np.float32(max(matters, 0.0) ** 2 + 1e-5))
        rows = rows[_distances(embedding, self._all[rows]) <= matters + 1e-4]
        self._measure(embedding, rows, found, without)
        return sorted(found.items(), key=lambda entry: entry[1])

    def _measure(
        self, embedding: Floats, rows: NDArray[np.intp], found: dict[int, float], without: frozenset[int]
    ) -> None:
        for member in {int(owner) for owner in self._owner[rows]} - found.keys():
            if self.members[member].person not in without:
                own = _distances(embedding, self._all[self._begins[member] : self._begins[member + 1]])
                found[member] = float(np.partition(own, 1)[:2].mean()) if len(own) > 1 else float(own[0])

    def _apart_of_members(self) -> NDArray[np.float64]:
        """Return how far each member is from the cohort's other people, (M,)."""
        sums, counts = np.zeros(len(self.members)), np.zeros(len(self.members))
        for start in range(0, self.references, 4096):
            block, owner = self._all[start : start + 4096], self._owner[start : start + 4096]
            apart = _pairwise(block, self._cohort)
            other = owner[:, None] != self._cohort_owner[None, :]
            np.add.at(sums, owner, np.where(other, apart, 0).sum(axis=1))
            np.add.at(counts, owner, other.sum(axis=1))
        mean = np.divide(sums, counts, out=np.full(len(sums), USUAL_APART), where=counts > 0)
        people = len(self.members) - 1
        blended: NDArray[np.float64] = (USUAL_WEIGHT * USUAL_APART + people * mean) / (USUAL_WEIGHT + people)
        return blended

    def _blend(self, distances: Floats, people: int) -> float:
        if not len(distances):
            return USUAL_APART
        return (USUAL_WEIGHT * USUAL_APART + people * float(distances.mean())) / (USUAL_WEIGHT + people)


def _distances(embedding: Floats, rows: Floats) -> Floats:
    difference = rows - embedding
    distances: Floats = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


def _pairwise(first: Floats, second: Floats) -> Floats:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * (first @ second.T)
    apart: Floats = np.sqrt(np.maximum(squares, 0))
    return apart
