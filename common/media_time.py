"""The media time of a line of frames: seconds that never go back, whatever the times of its source do. Pure."""

from __future__ import annotations

from common.messages import Frame

AHEAD_S = 10.0
"""Further than the clock went on, plus this, no live source's own time goes on from one picture to the next."""


class MediaTime:
    """Turns a source's own times, which begin anew with every run of its capture, into those of the line.

    Attributes:
        now_s: of the last picture that was looked at or passed over.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._offset_s = 0.0
        self._latest_s = 0.0  # that has come, in the line's time

    def begin_anew(self, frame: Frame, elapsed_s: float) -> None:
        """The source's times begin again with this frame, so many seconds after the last one came."""
        self._offset_s = self.now_s + max(elapsed_s, 0.001) - frame.media_time_s

    def arrive(self, frame: Frame, elapsed_s: float) -> None:
        """A frame has come: let time go on where its source's jumps, or labels and looks would wait for its return."""
        if frame.still:
            return
        at_s = self.of(frame)
        if at_s < self._latest_s:
            self._offset_s += self._latest_s - at_s
        elif not frame.every_frame and at_s > self._latest_s + elapsed_s + AHEAD_S:
            self._offset_s -= at_s - self._latest_s - elapsed_s
        self._latest_s = self.of(frame)

    def of(self, frame: Frame) -> float:
        """Return when a frame that has just come is, in the line's time."""
        return frame.media_time_s + self._offset_s
