"""What the conductor remembers of people: gallery, strangers, and what is to be written down. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.gallery import Gallery, Verdict
from common.unknown import Unknown, UnknownPeople

Floats = NDArray[np.float32]

MAX_WAITING = 20_000  # events; beyond that the oldest are lost, and counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A track was there and is somebody: a person or a stranger. Later ones of a track replace earlier ones."""

    track: int
    camera: str
    person: int | None
    unknown: int | None
    begin_at: float  # unix seconds
    end_at: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnknownLook:
    """A stranger was looked at; ``chip`` (150, 150, 3) uint8 RGB where it is good enough to be kept."""

    number: int
    embedding: NDArray[np.float32]  # mean of all looks
    weight: float
    first_at: float
    last_at: float
    looks: int
    chip: NDArray[np.uint8] | None = None
    own: NDArray[np.float32] | None = None  # the chip's own embedding
    quality: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Enrolment:
    """Somebody in view is to be enrolled with these looks.

    Attributes:
        again: also when they look like somebody enrolled; whoever has the name gets the pictures.
        alike: also when they look like somebody enrolled; a name that is taken stays so.
        track: whose face it is.
        number: theirs as a stranger so far.
    """

    request: str
    name: str
    fields: dict[str, Any]
    again: bool = False
    alike: bool = False
    track: int = 0
    number: int | None = None
    looks: list[tuple[NDArray[np.float32], NDArray[np.uint8], float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """A track taken for somebody else is of somebody without consent: what was kept of them since ``since`` must go.

    Attributes:
        person: who it is; what was kept of the track under that name was kept with their consent.
        number: of the stranger that it was taken for.
    """

    track: int
    person: int | None
    number: int | None
    since: float  # unix seconds


Event = Sighting | UnknownLook | Enrolment | Withheld


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The store's people at one moment; ``unknown`` None: as before."""

    gallery: Gallery
    unknown: tuple[Unknown, ...] | None = None
    numbers: tuple[int, ...] = ()


class Recall:
    """The people that a conductor knows.

    Args:
        most_unknown: how many strangers are kept in memory.
        remembers: whether strangers and sightings are kept at all.
    """

    def __init__(self, most_unknown: int = 500, *, remembers: bool = True) -> None:
        self.gallery = Gallery()
        self.unknown = UnknownPeople(most_unknown)
        self.remembers = remembers
        self.lost = 0
        self._events: deque[Event] = deque()

    def install(self, snapshot: Snapshot) -> frozenset[int] | None:
        """Take over what the store holds now; return the people who are gone since, None when nobody is another."""
        same = snapshot.gallery is self.gallery
        before = {member.person for member in self.gallery.members}
        self.gallery = snapshot.gallery
        if snapshot.unknown is not None:
            self.unknown.load(snapshot.unknown)
        self.unknown.reserve(snapshot.numbers)
        return None if same else frozenset(before - {member.person for member in self.gallery.members})

    # What is read of faces themselves goes through these: all that the decisions have of them is what these return.

    def recognise(self, embedding: Floats) -> Verdict:
        """Return who an embedding (128,) may be, by the gallery of the moment."""
        return self.gallery.recognise(embedding)

    def apart(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        """Return the distance of two embeddings, (128,) each."""
        return float(np.linalg.norm(one - other))

    def alike(self, one: Floats, other: Floats) -> float:
        """Return how alike two appearances are, (48,) each of unit length: 1 is the same."""
        return float(one @ other)

    def note(self, event: Event) -> None:
        """Have something written down."""
        if isinstance(event, Enrolment) or self.remembers:
            if len(self._events) >= MAX_WAITING:
                self._events.popleft()
                self.lost += 1
            self._events.append(event)

    def events(self) -> list[Event]:
        """Return what is to be written down since the last call."""
        noted = list(self._events)
        self._events.clear()
        return noted
