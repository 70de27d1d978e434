"""Unknown people: strangers whom Mien has seen, each under a number that stays theirs. In memory; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAME = 0.48  # distance of a track's mean embedding up to which a stranger is taken for one seen before
LEAD = 0.9  # … and at most this part of the distance to the next stranger
MIN_QUALITY = 0.4  # of a track's best crop, below which nobody gets a number
MOST_WEIGHT = 20.0  # bounded, so that a stranger who changes is followed


@dataclass(slots=True, kw_only=True, eq=False)
class Unknown:
    """A stranger.

    Attributes:
        number: theirs alone, for good.
        embedding: (128,) float32, mean of all looks.
        weight: how much the mean weighs against the next look.
        first_at, last_at: unix seconds.
        looks: how many there were.
    """

    number: int
    embedding: Floats
    weight: float
    first_at: float
    last_at: float
    looks: int = 1


class UnknownPeople:
    """Tells strangers apart.

    Args:
        most: how many are kept; beyond that the one unseen for longest is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._people: dict[int, Unknown] = {}
        self._stored: frozenset[int] = frozenset()  # numbers that the store had when it was last looked at
        self._numbers: deque[int] = deque()  # reserved for this process, not given to anybody yet
        self._rows: list[int] = []  # number of each row of the matrix
        self._matrix = np.zeros((0, 128), np.float32)

    def __len__(self) -> int:
        return len(self._people)

    def __contains__(self, number: object) -> bool:
        return number in self._people

    @property
    def free_numbers(self) -> int:
        """How many numbers can still be given."""
        return len(self._numbers)

    def reserve(self, numbers: Iterable[int]) -> None:
        """Take numbers that nobody else gives."""
        self._numbers.extend(numbers)

    def load(self, people: Iterable[Unknown]) -> None:
        """Know the people of the store: these, and whoever has been met here since and is not written down yet."""
        there = {person.number: person for person in people}
        stored = frozenset(there)
        for number, mine in self._people.items():
            known = there.get(number)
            if mine.last_at >= known.last_at if known is not None else number not in self._stored:
                there[number] = mine
        self._people, self._stored = there, stored
        self._rebuild()

    def withdraw(self, number: int, since: float) -> None:
        """Forget a stranger who was met since then, unix seconds; whoever had the number before may be another."""
        person = self._people.get(number)
        if person is not None and person.first_at >= since:
            del self._people[number]
            self._rebuild()

    def see(self, embedding: Floats, quality: float, at: float, *, taken: Collection[int] = ()) -> Unknown | None:
        """Return the stranger with this face, (128,), updated; a new one if nobody is near enough.

        Args:
            taken: numbers of others in the same picture, who cannot be this one.

        Returns:
            None when it cannot be told apart from two, or no number is free.
        """
        found = self._find(embedding, taken)
        if found == 0:
            return None
        if found is None:
            if not self._numbers:
                return None
            number = self._numbers.popleft()
            person = Unknown(
                number=number, embedding=embedding.copy(), weight=max(quality, 0.05), first_at=at, last_at=at
            )
            # Room is made before the newcomer is there, who would be the oldest where a camera's clock is behind.
            if len(self._people) >= self._most:
                del self._people[min(self._people.values(), key=lambda one: one.last_at).number]
            self._people[number] = person
            self._rebuild()
            return person
        return self.seen_again(found, embedding, quality, at)

    def seen_again(self, number: int, embedding: Floats, quality: float, at: float) -> Unknown | None:
        """Count another look at somebody who has a number; None: nobody of that number is kept any more."""
        person = self._people.get(number)
        if person is None:
            return None
        weight = max(quality, 0.05)
        person.embedding = person.embedding + (embedding - person.embedding) * np.float32(
            weight / (person.weight + weight)
        )
        person.weight = min(person.weight + weight, MOST_WEIGHT)
        person.last_at = max(person.last_at, at)
        person.looks += 1
        self._matrix[self._rows.index(number)] = person.embedding
        return person

    def _find(self, embedding: Floats, taken: Collection[int]) -> int | None:
        """Return the number of the nearest, None if nobody is near enough, 0 if two are alike near."""
        if not self._rows:
            return None
        apart = np.linalg.norm(self._matrix - embedding, axis=1)
        order = [int(row) for row in np.argsort(apart)[: 2 + len(taken)] if self._rows[int(row)] not in taken]
        if not order or apart[order[0]] > SAME:
            return None
        if len(order) > 1 and apart[order[0]] > LEAD * apart[order[1]]:
            # Two numbers for one stranger happen (seen from two sides): the older one is theirs, when both are near.
            both = [self._rows[row] for row in order[:2]]
            return min(both) if apart[order[1]] <= SAME else 0
        return self._rows[order[0]]

    def _rebuild(self) -> None:
        self._rows = list(self._people)
        self._matrix = (
            np.stack([person.embedding for person in self._people.values()])
            if self._people
            else np.zeros((0, 128), np.float32)
        )
