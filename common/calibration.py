"""Calibration: the thresholds that suit the pictures and people at hand, found by trying them on people who are known.

Each of the people in turn plays a stranger to the others, and each of their pictures somebody who comes back. The
threshold is the most generous one that still names hardly any stranger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from common.gallery import Gallery, Member, Thresholds
from common.settings import Config
from common.store import Store

SETTING = "calibration"
MIN_PEOPLE = 8
MIN_PICTURES = 30
STRANGERS = 0.004  # of strangers' pictures may be named, at most, on those it is found on
LOST = 0.005  # of known pictures that may be lost by being stricter than the strangers ask
LOOSEST, STRICTEST = 0.12, 0.40
ROUNDS = 3
REFERENCES = 3  # a person, as people are enrolled

Floats = NDArray[np.float32]


class CalibrationError(ValueError):
    """There is not enough to calibrate with; the text says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Thresholds and what they do on the people they were found with; rates are 0 … 1.

    Attributes:
        strangers: pictures of strangers that get a name.
        known: pictures of enrolled people that get their own name.
        mistaken: … that get another's.
    """

    nearer: float
    lead: float
    strangers: float
    known: float
    mistaken: float
    people: int
    pictures: int

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(nearer=self.nearer, lead=self.lead)


@dataclass(frozen=True, slots=True)
class _Try:
    """A picture against a gallery: how much nearer than others, how far in parts of the second-best and of people in
    general, and whether it is the right person (None: a stranger)."""

    gain: float
    lead: float
    crowd: float
    right: bool | None


def thresholds(store: Store, config: Config) -> Thresholds:
    """Return the thresholds in force: what the configuration says, else the calibration, else the defaults."""
    known = load(store)
    base = Thresholds() if known is None else known.thresholds
    return Thresholds(nearer=config.identity.nearer or base.nearer, lead=config.identity.lead or base.lead)


def load(store: Store) -> Calibration | None:
    """Return the calibration that was kept, None if there is none."""
    kept = store.setting(SETTING)
    return None if kept is None else Calibration(**json.loads(kept))


def keep(store: Store, calibration: Calibration | None) -> None:
    """Put a calibration into force; None: back to the defaults."""
    with store.write() as connection:
        if calibration is None:
            store.drop_setting(connection, SETTING)
        else:
            store.set_setting(connection, SETTING, json.dumps(asdict(calibration)).encode())
        store.changed(connection)
        told = "defaults" if calibration is None else f"nearer {calibration.nearer:.3f}, {calibration.people} people"
        store.audit(connection, "calibrated", told)


def calibrate(people: Sequence[Floats], *, seed: int = 0, strangers: float = STRANGERS) -> Calibration:
    """Return the calibration that people's embeddings give, each (R, 128) float32.

    Args:
        seed: which pictures are taken for references and which are tried; the same seed gives the same result.
        strangers: rate of strangers' pictures that may be named.

    Raises:
        CalibrationError: too few people or pictures.
    """
    people = [embeddings for embeddings in people if len(embeddings)]
    pictures = sum(len(embeddings) for embeddings in people)
    if len(people) < MIN_PEOPLE or pictures < MIN_PICTURES:
        raise CalibrationError(
            f"{len(people)} people with {pictures} pictures together are too few to calibrate with: "
            f"at least {MIN_PEOPLE} people and {MIN_PICTURES} pictures are needed"
        )
    if all(len(embeddings) == 1 for embeddings in people):
        raise CalibrationError("one picture a person shows nobody coming back: some people need two pictures or more")
    tries = _tries(people, np.random.default_rng(seed))
    lead, crowd = Thresholds().lead, Thresholds().crowd
    clear = [t for t in tries if t.lead <= lead and t.crowd <= crowd]
    gains = np.sort([t.gain for t in clear if t.right is None])[::-1]
    total = sum(t.right is None for t in tries)
    allowed = math.floor(strangers * total)
    # Just beyond the first stranger that is one too many …
    nearer = float(gains[allowed]) + 1e-6 if len(gains) > allowed else LOOSEST
    # … and where known faces leave room, half-way to them: a few dozen people do not show how near a stranger can be.
    kept = [t.gain for t in clear if t.right]
    room = float(np.quantile(kept, LOST)) if kept else nearer
    nearer = min(max(nearer, (nearer + room) / 2, LOOSEST), STRICTEST)
    named = [t for t in clear if t.gain >= nearer]
    known = max(1, sum(t.right is not None for t in tries))
    return Calibration(
        nearer=nearer,
        lead=lead,
        strangers=sum(t.right is None for t in named) / max(1, total),
        known=sum(t.right is True for t in named) / known,
        mistaken=sum(t.right is False for t in named) / known,
        people=len(people),
        pictures=pictures,
    )


def _tries(people: Sequence[Floats], rng: np.random.Generator) -> list[_Try]:
    tries: list[_Try] = []
    for _ in range(ROUNDS):
        orders = [rng.permutation(len(embeddings)) for embeddings in people]
        few = [min(REFERENCES, max(1, len(e) - 1)) for e in people]  # of two or more pictures, one is left to try
        enrolled = [e[order[:count]] for e, order, count in zip(people, orders, few, strict=True)]
        rest = [e[order[count:]] for e, order, count in zip(people, orders, few, strict=True)]
        members = [Member(person=i, name=str(i), embeddings=e) for i, e in enumerate(enrolled)]
        whole = Gallery(members)
        for person, embeddings in enumerate(rest):
            tries += [_tried(whole, embedding, person) for embedding in embeddings]
        for person, embeddings in enumerate(people):
            others = Gallery([member for member in members if member.person != person])
            tries += [_tried(others, embedding, None) for embedding in embeddings]
    return tries


def _tried(gallery: Gallery, embedding: Floats, person: int | None) -> _Try:
    verdict = gallery.recognise(embedding)
    best = verdict.best
    if best is None:
        return _Try(-math.inf, math.inf, math.inf, None if person is None else False)
    second = verdict.candidates[1].distance if len(verdict.candidates) > 1 else math.inf
    right = None if person is None else best.person == person
    return _Try(best.apart - best.distance, best.distance / max(second, 1e-6), best.distance / best.crowd, right)
