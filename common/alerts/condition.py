"""How long something has been so: counted in time that could be assessed, with hysteresis and pauses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.expressions import EXPRESSIONS

GAP_S = 2.0  # two looks farther apart than this say nothing about the time between them
BACK = 2.0  # so many times as fast does time below the leaving threshold count back

Seven = Sequence[float]  # probabilities in the order of EXPRESSIONS


@dataclass(slots=True)
class Condition:
    """One rule's count for one person.

    Before it is met, time at or above ``enter`` counts, time between the thresholds counts back, time below ``leave``
    counts back twice as fast: what flickers gets nowhere. Once it is met, time below ``leave`` leads out of it, time
    above leads back. Time that could not be assessed does neither: the count stands still, until it has stood for
    ``pause_s``.

    Attributes:
        met: it has been so for long enough.
        held_s: what has been counted.
        calm_s: how much of ``leave_s`` has passed, once it is met.
        began_at: since when it counts; None: it does not.
        last_at: the last look that could be assessed.
        assessed_s, unassessed_s: since ``began_at``.
        weights: (7,) how much each expression had to do with it.
        tracks: seconds of it by track.
    """

    duration_s: float
    leave_s: float
    pause_s: float
    met: bool = False
    held_s: float = 0.0
    calm_s: float = 0.0
    began_at: float | None = None
    last_at: float | None = None
    assessed_s: float = 0.0
    unassessed_s: float = 0.0
    peak: float = 0.0
    weights: list[float] = field(default_factory=lambda: [0.0] * len(EXPRESSIONS))
    tracks: dict[int, float] = field(default_factory=dict)

    def look(
        self, at: float, value: float, *, enter: float, leave: float, seven: Seven = (), track: int | None = None
    ) -> None:
        """Take one look that could be assessed.

        Args:
            at: seconds; looks of the past are left out.
            value: what is compared with the thresholds.
            seven: parts of the value, by expression; for ``weights``.
        """
        if self.last_at is not None and at <= self.last_at:
            return
        passed = GAP_S + 1.0 if self.last_at is None else at - self.last_at
        self.last_at = at
        if self.began_at is None:
            if value < enter:
                return
            self.began_at, passed = at, 0.0
        if passed > GAP_S:
            self.unassessed_s += passed
            passed = 0.0
        self.assessed_s += passed
        if value >= leave:
            self.peak = max(self.peak, value)
            if track is not None:
                self.tracks[track] = self.tracks.get(track, 0.0) + passed
            self.weights = [old + p * passed for old, p in zip(self.weights, seven or [0.0] * 7, strict=True)]
        if self.met:
            self.held_s += passed if value >= leave else 0.0
            self.calm_s = max(0.0, self.calm_s + (passed if value < leave else -passed))
            return
        if value >= enter:
            self.held_s += passed
            self.met = self.held_s >= self.duration_s
        else:
            self.held_s -= passed * (BACK if value < leave else 1.0)
            if self.held_s <= 0:
                self.reset()

    @property
    def left(self) -> bool:
        """It was met and has been over for long enough."""
        return self.met and self.calm_s >= self.leave_s

    def lost(self, now: float) -> bool:
        """Whether nothing could be assessed for too long. What had only begun does not wait so long."""
        if self.last_at is None or self.began_at is None:
            return False
        patience = self.pause_s if self.met else min(self.pause_s, max(self.duration_s, 5.0))
        return now - self.last_at > patience

    def unassessed_by(self, now: float) -> float:
        """Return how long nothing could be assessed since it began, with the gap that may be going on."""
        gap = 0.0 if self.last_at is None else now - self.last_at
        return self.unassessed_s + (gap if gap > GAP_S else 0.0)

    def reset(self) -> None:
        """Begin anew; the last look stays known."""
        self.met, self.began_at = False, None
        self.held_s = self.calm_s = self.assessed_s = self.unassessed_s = self.peak = 0.0
        self.weights = [0.0] * len(EXPRESSIONS)
        self.tracks = {}

    def mostly(self, track: int | None) -> bool:
        """Whether most of it is this track's doing; None: whoever's."""
        return track is None or 2 * self.tracks.get(track, 0.0) >= sum(self.tracks.values())

    def leading(self) -> list[str]:
        """Return the one or two expressions that weighed most; none before anything did."""
        total = sum(self.weights)
        ranked = sorted(zip(self.weights, EXPRESSIONS, strict=True), reverse=True)
        return [name for weight, name in ranked[:2] if total > 0 and weight >= 0.35 * total] or [
            name for weight, name in ranked[:1] if weight > 0
        ]
