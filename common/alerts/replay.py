"""Other thresholds over stored history: how many alerts there would have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.alerts.condition import Condition
from common.alerts.rules import Rule
from common.expressions import EXPRESSIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """An episode that a rule would have opened; unix seconds. ``closed_at`` None: it was still open at the end."""

    began_at: float
    opened_at: float
    closed_at: float | None


def replay(
    rule: Rule,
    at: Sequence[int] | NDArray[np.int64],
    assessed: NDArray[np.float64],
    probabilities: NDArray[np.float64],
) -> list[Replayed]:
    """Return what a rule for expressions would have opened for one person.

    Args:
        at: (N,) unix seconds, ascending.
        assessed: (N,) share of each second that could be assessed; seconds of less than a tenth say nothing.
        probabilities: (N, 7) means over the assessed share.
    """
    chosen = [EXPRESSIONS.index(name) for name in rule.expressions]
    values = probabilities[:, chosen].sum(axis=1).tolist()
    condition = Condition(rule.min_duration_s, rule.leave_s, rule.pause_s)
    found: list[Replayed] = []
    current: Replayed | None = None
    cooled_at = -float("inf")
    for second, share, value in zip(np.asarray(at).tolist(), assessed.tolist(), values, strict=True):
        if condition.lost(second):
            closed_at = (condition.last_at or second) + rule.pause_s  # long before this second, perhaps
            found += _closed(current, closed_at)
            cooled_at = closed_at + rule.cooldown_s if current else cooled_at
            current = None
            condition.reset()
        if share < 0.1:
            continue
        condition.look(second, value, enter=rule.min_probability, leave=rule.leave)
        if condition.left:
            found += _closed(current, second)
            cooled_at = second + rule.cooldown_s if current else cooled_at
            current = None
            condition.reset()
        elif condition.met and current is None and second >= cooled_at:
            began = second if condition.began_at is None else condition.began_at
            current = Replayed(began_at=began, opened_at=second, closed_at=None)
    return found + ([current] if current is not None else [])


def overlaps(replayed: Replayed, began_at: float, closed_at: float | None) -> bool:
    """Return whether an episode that there was, and one that there would have been, are about the same time."""
    end = float("inf") if replayed.closed_at is None else replayed.closed_at
    return replayed.began_at <= (float("inf") if closed_at is None else closed_at) and end >= began_at


def _closed(current: Replayed | None, at: float) -> list[Replayed]:
    if current is None:
        return []
    return [Replayed(began_at=current.began_at, opened_at=current.opened_at, closed_at=at)]
