"""From one frame's probabilities to a label that people can read: calm, yet never late.

Probabilities are averaged over the track with a time constant, in media time. The label changes when another one leads
by a margin, or leads at all for a while; short gaps are bridged, longer ones are said. A face at the limit of what can
be judged is not judged in between: it has to stay on the right side of it for a while.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS, ExpressionName

HOLD_S = 0.3  # a label outlives a missing or unassessable frame this long …
LATE = 2.0  # … and where answers come late, so many times as long as they are late in addition: until the next comes …
LONGEST_HOLD_S = 2.0  # … but never longer than this
RESTART_S = 1.0  # after a longer gap the average begins anew
LEAD_S = 0.2  # a narrow lead this long is a change for good
RETURN_S = 0.2  # after it was said, nothing may have been in the way for this long before there is a label again


@dataclass(frozen=True, slots=True)
class Look:
    """What a track shows at one moment: an expression, or why there is none.

    Attributes:
        status: ``ok``, ``cannot_assess`` or ``pending``.
        label, confidence, smoothed: the shown label, its averaged probability, the average of all seven.
    """

    status: Literal["ok", "cannot_assess", "pending"]
    reason: str | None = None
    label: ExpressionName | None = None
    confidence: float | None = None
    smoothed: NDArray[np.float64] | None = None  # (7,), sums to 1


class Smoother:
    """The expression of one track over time.

    Args:
        settle_ms: time constant of the average.
        margin: lead at which another label is shown at once.
    """

    def __init__(self, *, settle_ms: float, margin: float) -> None:
        self._settle_s = settle_ms / 1e3
        self._margin = margin
        self._average: NDArray[np.float64] | None = None
        self._shown: int | None = None
        self._now_s = -math.inf  # media time of the last frame, and of the last probabilities
        self._seen_at = -math.inf
        self._hold_s = HOLD_S
        self._leader: int | None = None
        self._leads_since = 0.0
        self._reason: str | None = None
        self._reason_at = -math.inf
        self._unassessed = False  # that it cannot be assessed is what was said last

    def update(self, at_s: float, probabilities: NDArray[np.floating] | None, reason: str | None = None) -> Look:
        """Take one frame and return what to show.

        Args:
            at_s: media time, seconds; never goes back within a track.
            probabilities: (7,), or None when there are none for this frame.
            reason: why the face cannot be assessed, if that is why there are none.
        """
        self._now_s = at_s
        if probabilities is not None:
            self._hold_s = HOLD_S
            self._judge(at_s, probabilities)
            return Look("cannot_assess", reason=self._reason) if self._unassessed else self._look()
        if reason is not None:
            self._reason, self._reason_at = reason, at_s
        # Of a face that cannot be assessed no answer is on its way.
        hold_s = HOLD_S if self._reason_at > self._seen_at else self._hold_s
        if self._shown is not None and at_s - self._seen_at <= hold_s and not self._unassessed:
            return self._look()
        if self._reason is not None and at_s - self._reason_at <= HOLD_S:
            self._unassessed = True
            return Look("cannot_assess", reason=self._reason)
        self._unassessed = False
        return Look("pending")

    def late(self, at_s: float, probabilities: NDArray[np.floating]) -> None:
        """Take the probabilities of a frame that was shown without them: what is shown from now on is made of them.

        Older ones than those that are there already say nothing new.
        """
        if at_s <= self._seen_at:
            return
        self._hold_s = min(HOLD_S + LATE * max(self._now_s - at_s, 0.0), LONGEST_HOLD_S)
        self._judge(at_s, probabilities)

    def _judge(self, at_s: float, probabilities: NDArray[np.floating]) -> None:
        self._average_in(at_s, np.asarray(probabilities, dtype=np.float64))
        self._choose(at_s)
        if at_s - self._reason_at >= (RETURN_S if self._unassessed else 0.0):
            self._unassessed, self._reason = False, None

    def _average_in(self, at_s: float, probabilities: NDArray[np.float64]) -> None:
        gap = at_s - self._seen_at
        self._seen_at = at_s
        if self._average is None or gap > RESTART_S:
            self._average = probabilities
            self._shown = self._leader = None
            return
        weight = 1.0 if self._settle_s == 0 else 1.0 - math.exp(-max(gap, 0.0) / self._settle_s)
        self._average = self._average + weight * (probabilities - self._average)

    def _choose(self, at_s: float) -> None:
        assert self._average is not None
        leader = int(self._average.argmax())
        if self._shown is None:
            self._shown = leader
        if leader != self._leader:
            self._leader, self._leads_since = leader, at_s
        lead = self._average[leader] - self._average[self._shown]
        if leader != self._shown and (lead >= self._margin or at_s - self._leads_since >= LEAD_S):
            self._shown = leader

    def _look(self) -> Look:
        assert self._average is not None and self._shown is not None
        return Look(
            "ok",
            label=EXPRESSIONS[self._shown],
            confidence=float(self._average[self._shown]),
            smoothed=self._average / self._average.sum(),
        )
