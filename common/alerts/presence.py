"""Somebody who is there without a face to be seen, and a camera that gives nothing."""

from __future__ import annotations

from dataclasses import dataclass

from common.alerts.condition import GAP_S

LATELY_S = 60.0  # whose face was found so lately is still there, whether it could be assessed or not
SHOWS = "pictures come again"
STARTING_S = 60.0  # models load, cameras connect: before that, a camera without results is no news
SILENT_S = 5.0  # without a result: longer than any pause between two looks at a room in which nobody is


@dataclass(slots=True)
class Unseen:
    """How long a person's face has not been assessable while the person was there.

    There is whoever's face was found within the last minute, however small, turned or dark, and whoever is followed
    (selected) although no face is found. Time in which no camera gave pictures does not count.

    Attributes:
        unseen_s: what has been counted.
        clear_s: assessed time since then; ``leave_s`` of it ends the count.
        found_at: when the face was found last.
    """

    leave_s: float
    unseen_s: float = 0.0
    clear_s: float = 0.0
    found_at: float | None = None
    cleared_at: float | None = None
    ticked_at: float | None = None
    began_at: float | None = None

    def face(self, at: float, *, assessed: bool) -> None:
        """The person's face was found, and could be assessed or not."""
        if assessed:
            if self.cleared_at is not None and 0 < at - self.cleared_at <= GAP_S:
                self.clear_s += at - self.cleared_at
            self.cleared_at = at
            if self.clear_s >= self.leave_s:
                self.unseen_s, self.began_at = 0.0, None
        self.found_at = at

    def tick(self, now: float, *, online: bool, followed: bool) -> None:
        """Let time pass; at least once a second."""
        passed = 0.0 if self.ticked_at is None else now - self.ticked_at
        self.ticked_at = now
        clear = self.cleared_at is not None and now - self.cleared_at <= GAP_S
        if clear or not online or not (followed or self.lately(now)) or not 0 < passed <= 10:
            return
        self.clear_s = 0.0
        self.unseen_s += passed
        if self.began_at is None:
            self.began_at = now - passed

    def lately(self, now: float) -> bool:
        """Whether the face was found within the last minute."""
        return self.found_at is not None and now - self.found_at <= LATELY_S

    @property
    def seen_again(self) -> bool:
        return self.clear_s >= self.leave_s


@dataclass(slots=True)
class Watch:
    """What is known of a camera.

    Attributes:
        result_at: of the last result, by this machine's clock; before the first one: when it should have come by.
        state, since: what the camera said last, if it did; ``since`` by this machine's clock, too.
        paused: somebody has asked that it shows nothing.
        bright_at: since when it gives pictures again.
    """

    result_at: float
    state: str = "online"
    since: float = 0.0
    paused: bool = False
    bright_at: float | None = None

    def said(self, state: str, since: float, now: float, *, paused: bool) -> None:
        """Take what the camera says of itself."""
        if self.paused and not paused:  # it need not have shown anything meanwhile
            self.result_at = max(self.result_at, now)
        self.state, self.since, self.paused = state, since, paused

    def dark_since(self, now: float) -> float | None:
        """Return since when it has given nothing; None while it gives pictures, is paused, or its source has ended."""
        if self.state == "ended" or self.paused:
            return None
        if self.state in ("offline", "stalled"):
            starts = self.result_at > now and self.since > self.result_at - STARTING_S - SILENT_S
            return None if starts else min(self.since, now)
        return self.result_at if now - self.result_at > SILENT_S else None

    @property
    def why_bright(self) -> str:
        """Why it is not dark (any more)."""
        if self.paused:
            return "paused"
        return "the source has ended" if self.state == "ended" else SHOWS
