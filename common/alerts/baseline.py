"""What is usual for a person, learned slowly, so that a rule can ask how far from it they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from common.alerts.condition import GAP_S, Seven
from common.expressions import EXPRESSIONS, ExpressionName

MEMORY_S = 8 * 3600.0  # assessed time after which a change has become two thirds of what is usual
LEARNED_S = 600.0  # assessed time before which nothing is called usual
# However somebody has looked for weeks: no more than this of a rule's expressions is ever called usual.
MOST = 0.3
HIGHEST = 0.9  # a threshold that follows what is usual never rises above this


@dataclass(slots=True)
class Usual:
    """One person's usual expressions.

    Attributes:
        mean: (7,) probabilities.
        learned_s: assessed time that went into it.
    """

    mean: list[float] = field(default_factory=lambda: [0.0] * len(EXPRESSIONS))
    learned_s: float = 0.0
    last_at: float | None = None

    def learn(self, at: float, seven: Seven, *, calm: bool) -> None:
        """Take one look. ``calm`` False: a rule counts at the moment, which must not come to be called usual."""
        passed = 0.0 if self.last_at is None else at - self.last_at
        self.last_at = at
        if not calm or not 0 < passed <= GAP_S:
            return
        self.learned_s += passed
        weight = passed / min(self.learned_s, MEMORY_S)
        self.mean = [old + weight * (p - old) for old, p in zip(self.mean, seven, strict=True)]

    def threshold(self, expressions: Iterable[ExpressionName], above: float) -> float | None:
        """Return the probability that lies ``above`` what is usual; None while that is not known."""
        if self.learned_s < LEARNED_S:
            return None
        usual = sum(self.mean[EXPRESSIONS.index(name)] for name in expressions)
        return min(HIGHEST, min(MOST, usual) + above)
