"""Made-up results for the tests of alerts: who was seen when, and how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.alerts.desk import Desk
from common.alerts.episode import Happening
from common.alerts.register import Known
from common.alerts.rules import Rule
from common.expressions import EXPRESSIONS
from common.messages import CameraState, Correction, Expression, Face, Identity, Probabilities, Result

BEGIN = 1_790_000_000.0
SAD, HAPPY = {"sad": 0.9}, {"happy": 0.95}
ADA = Identity(status="known", person=3, name="Ada", distance=0.3, confidence=0.9)
BEN = Identity(status="known", person=4, name="Ben", distance=0.3, confidence=0.9)
STRANGER = Identity(status="unknown", number=12)
PENDING = Identity()
WITHHELD = Identity(status="unknown", withheld=True)
PEOPLE = {3: Known(name="Ada", role="patient"), 4: Known(name="Ben", role="staff")}


def face(look: dict[str, float] | str | None, who: Identity = ADA, track: int = 17, *, pending: bool = False) -> Face:
    """A face that looks so (probabilities; the rest is neutral), or cannot be assessed for this reason."""
    expression = Expression(status="pending")
    if isinstance(look, str):
        expression = Expression(status="cannot_assess", reason=look)
    elif look is not None and not pending:
        spread = dict.fromkeys(EXPRESSIONS, 0.0) | look
        spread["neutral"] = spread["neutral"] + max(0.0, 1 - sum(spread.values()))
        probabilities = Probabilities(**spread)
        label = max(spread, key=lambda name: spread[name])
        expression = Expression(
            status="ok", label=label, confidence=spread[label], probabilities=probabilities, smoothed=probabilities
        )  # type: ignore[arg-type]
    return Face(
        track=track, box=(10, 10, 50, 60), score=0.9,
        landmarks=((1, 1), (2, 1), (1.5, 2), (1, 3), (2, 3)), identity=who, expression=expression,
    )  # fmt: skip


def result(
    at: float, *faces: Face, camera: str = "ward", selected: int | None = None, following: bool = False,
    analysed: bool = True,
) -> Result:  # fmt: skip
    """A result whose picture was taken just now. Who is ``selected`` is followed; ``following``: also out of view."""
    return Result(
        sender="conductor.test.1", camera=camera, run=1, seq=int(at * 100) % 10**9, captured_at=at, width=640,
        height=360, analysed=analysed, latency_ms=0, timings_ms={}, media_time_s=0, faces=faces, selected=selected,
        following=following or selected is not None,
    )  # fmt: skip


def correction(track: int, was: Identity, now: Identity, camera: str = "ward") -> Correction:
    return Correction(sender="conductor.test.1", camera=camera, run=1, track=track, from_seq=0, was=was, now=now)


def camera_is(
    state: Any, since: float, camera: str = "ward", *, at: float | None = None, paused: bool = False
) -> CameraState:
    """What a camera says of itself; both times are of its machine's clock, ``at`` None: it has only just become so."""
    at = since if at is None else at
    return CameraState(sender="capture.test.1", camera=camera, state=state, since=since, at=at, paused=paused)


class Script:
    """A desk with a clock of its own.

    Attributes:
        happened: everything so far.
        numbered: episodes get numbers at once, as if they were written down.
    """

    def __init__(self, *rules: Rule, cameras: Iterable[str] = ("ward",), people: dict[int, Known] = PEOPLE) -> None:
        self.desk = Desk(rules, cameras, BEGIN)
        self.desk.refresh(dict(people), BEGIN)
        self.now = BEGIN
        self.happened: list[Happening] = []
        self.numbered = True

    def play(
        self, seconds: float, *faces: Face, rate: float = 5.0, camera: str = "ward", selected: int | None = None,
        following: bool = False,
    ) -> list[str]:  # fmt: skip
        """Let these faces be seen for so long; return the events of that time."""
        return self._run(seconds, rate, lambda: self.desk.result(
            result(self.now, *faces, camera=camera, selected=selected, following=following), self.now
        ))  # fmt: skip

    def wait(self, seconds: float, rate: float = 5.0) -> list[str]:
        """Let time pass without any result."""
        return self._run(seconds, rate, lambda: None)

    def events(self) -> list[str]:
        """Return what has happened since the last call."""
        new = self.desk.happenings()
        for number, happening in enumerate(new, len(self.happened) + 1):
            if self.numbered and happening.live.number is None:
                happening.live.number = number
        self.happened += new
        return [happening.event for happening in new]

    def _run(self, seconds: float, rate: float, once: Any) -> list[str]:
        for _ in range(round(seconds * rate)):
            self.now += 1 / rate
            once()
            self.desk.tick(self.now)
        return self.events()
