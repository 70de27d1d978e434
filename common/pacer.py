"""When to show the pictures of a file that can be read faster than it plays."""

from __future__ import annotations

RESTART_AFTER_S = 1.0  # behind by more: the machine slept or cannot keep up; go on from here instead of rushing
LONGEST_GAP_S = 5.0  # … ahead of the picture before by more: a hole in the recording; nobody waits for it
SHOW_AT_LEAST_EVERY_S = 0.2  # a machine that is always late still shows something


class Pacer:
    """Ties media time to the clock. Errors do not add up: every picture is due relative to the first.

    Args:
        period_s: usual time between two pictures; one that is late by more is skipped.

    Attributes:
        gaps: holes that were not waited for.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._start_s: float | None = None  # when media time 0 is, or would have been
        self._shown_s = float("-inf")
        self._media_s: float | None = None  # of the picture before
        self.gaps = 0

    def due(self, media_time_s: float, now_s: float) -> float | None:
        """When (on the clock of ``now_s``) to show the picture of this media time; None: skip it, it is too late."""
        if self._start_s is None or now_s - (self._start_s + media_time_s) > RESTART_AFTER_S:
            self._start_s = now_s - media_time_s
        gap_s = 0.0 if self._media_s is None else media_time_s - self._media_s
        if gap_s > max(LONGEST_GAP_S, 3 * self._period_s):
            self._start_s -= gap_s - self._period_s
            self.gaps += 1
        self._media_s = media_time_s
        due_s = self._start_s + media_time_s
        if now_s - due_s > self._period_s and now_s - self._shown_s < SHOW_AT_LEAST_EVERY_S:
            return None
        self._shown_s = max(due_s, now_s)
        return due_s
