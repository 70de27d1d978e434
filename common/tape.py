"""What the decisions ask of faces themselves, written down as answers: enough to decide again, nothing to recognise by.

How alike two appearances are, how far apart two embeddings, whom the gallery names, which stranger it is, which number
a new track gets: these answers are the only way in which pixels and embeddings reach a decision. A recording keeps the
answers in the order in which they were asked for, and the replay gives them again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.gallery import DIMENSIONS, Candidate, Verdict
from common.recall import Recall, Snapshot
from common.unknown import Unknown, UnknownPeople

Floats = NDArray[np.float32]

ALIKE, APART, VERDICT, STRANGER, KEPT, TRACK, PEOPLE = range(7)
WORDS = ("likeness", "distance", "verdict", "stranger", "stranger kept", "track id", "people")


class Diverged(RuntimeError):
    """A replay asks for something else than the recorded run did; the text says what."""


class Tape:
    """Answers in the order of the questions: added by a run that is recorded, taken by its replay."""

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()

    def add(self, kind: int, value: Any) -> None:
        """Write an answer down."""
        self.answers.append((kind, value))

    def take(self, kind: int) -> Any:
        """Return the next answer. Raises Diverged: the recorded run asked something else here, or nothing."""
        if not self.answers:
            raise Diverged(f"asks for a {WORDS[kind]}; the recorded run asked nothing more")
        asked, value = self.answers.popleft()
        if asked != kind:
            raise Diverged(f"asks for a {WORDS[kind]}; the recorded run asked for a {WORDS[asked]}")
        return value

    def cut(self) -> list[Any]:
        """Return what was added since the last call."""
        answers = list(self.answers)
        self.answers.clear()
        return answers


class RecordedRecall(Recall):
    """Answers as ``Recall``, and writes each answer on the tape."""

    def __init__(self, tape: Tape, most_unknown: int = 500, *, remembers: bool = True) -> None:
        super().__init__(most_unknown, remembers=remembers)
        self.unknown = _RecordedStrangers(tape, most_unknown)
        self._tape = tape

    def install(self, snapshot: Snapshot) -> frozenset[int] | None:
        gone = super().install(snapshot)
        self._tape.add(PEOPLE, None if gone is None else sorted(gone))
        return gone

    def recognise(self, embedding: Floats) -> Verdict:
        verdict = super().recognise(embedding)
        self._tape.add(VERDICT, _packed(verdict))
        return verdict

    def apart(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        distance = super().apart(one, other)
        self._tape.add(APART, distance)
        return distance

    def alike(self, one: Floats, other: Floats) -> float:
        likeness = super().alike(one, other)
        self._tape.add(ALIKE, likeness)
        return likeness


class ReplayedRecall(Recall):
    """Answers from the tape; who is asked about does not matter."""

    def __init__(self, tape: Tape, *, remembers: bool = True) -> None:
        super().__init__(1, remembers=remembers)
        self.unknown = _ReplayedStrangers(tape)
        self._tape = tape

    def install(self, snapshot: Snapshot) -> frozenset[int] | None:
        gone = self._tape.take(PEOPLE)
        return None if gone is None else frozenset(gone)

    def recognise(self, embedding: Floats) -> Verdict:
        return _unpacked(self._tape.take(VERDICT))

    def apart(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        return float(self._tape.take(APART))

    def alike(self, one: Floats, other: Floats) -> float:
        return float(self._tape.take(ALIKE))


class _RecordedStrangers(UnknownPeople):
    def __init__(self, tape: Tape, most: int) -> None:
        super().__init__(most)
        self._tape = tape

    def __contains__(self, number: object) -> bool:
        kept = super().__contains__(number)
        self._tape.add(KEPT, kept)
        return kept

    def see(self, embedding: Floats, quality: float, at: float, *, taken: Collection[int] = ()) -> Unknown | None:
        person = super().see(embedding, quality, at, taken=taken)
        self._tape.add(STRANGER, None if person is None else person.number)
        return person


class _ReplayedStrangers(UnknownPeople):
    def __init__(self, tape: Tape) -> None:
        super().__init__(1)
        self._tape = tape

    def __contains__(self, number: object) -> bool:
        return bool(self._tape.take(KEPT))

    def see(self, embedding: Floats, quality: float, at: float, *, taken: Collection[int] = ()) -> Unknown | None:
        number = self._tape.take(STRANGER)
        return None if number is None else _stranger(number, at)

    def seen_again(self, number: int, embedding: Floats, quality: float, at: float) -> Unknown | None:
        return _stranger(number, at)  # asked only of those who are kept


def recorded_ids(tape: Tape, new_track: Callable[[], int]) -> Callable[[], int]:
    """Return a giver of track ids that writes each on the tape."""

    def give() -> int:
        track = new_track()
        tape.add(TRACK, track)
        return track

    return give


def replayed_ids(tape: Tape) -> Callable[[], int]:
    """Return a giver of the track ids on the tape."""
    return lambda: int(tape.take(TRACK))


def _stranger(number: int, at: float) -> Unknown:
    return Unknown(
        number=number, embedding=np.zeros(DIMENSIONS, np.float32), weight=1.0, first_at=at, last_at=at, looks=1
    )


def _packed(verdict: Verdict) -> list[Any]:
    people = [[c.person, c.name, c.withheld, c.distance, c.score, c.apart, c.crowd] for c in verdict.candidates]
    return [verdict.clear, people]


def _unpacked(value: Any) -> Verdict:
    clear, people = value
    return Verdict(
        clear=clear,
        candidates=tuple(
            Candidate(person=p, name=name, withheld=withheld, distance=d, score=score, apart=apart, crowd=crowd)
            for p, name, withheld, d, score, apart, crowd in people
        ),
    )
