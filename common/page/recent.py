"""The last minutes of everybody in view, in memory: who is here now, and how each has looked. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from common.clock import JUMP_S
from common.messages import Face, Result

KEPT_S = 600.0
EVERY_S = 1.0  # one moment a second is remembered
HERE_S = 3.0  # somebody seen so recently is here
_MOST = 200  # faces that are remembered


@dataclass(slots=True)
class Trail:
    """One track: the face as last seen, and a moment a second: when, label (None: not assessed), probability."""

    camera: str
    face: Face
    since: float
    last: float
    seen_s: float  # when a result with it came, monotonic seconds: cameras' clocks may be wrong, or set
    moments: deque[tuple[float, str | None, float]] = field(default_factory=deque)


class Recent:
    """Fed with results; keeps ten minutes."""

    def __init__(self) -> None:
        self._trails: OrderedDict[int, Trail] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether anything is remembered."""
        return bool(self._trails)

    def note(self, result: Result, now_s: float) -> None:
        """Take a result in that comes at ``now_s``, monotonic seconds."""
        at = result.captured_at
        for face in result.faces:
            trail = self._trails.get(face.track)
            if trail is None:
                trail = self._trails[face.track] = Trail(result.camera, face, at, at, now_s)
            self._trails.move_to_end(face.track)
            trail.face, trail.last, trail.seen_s = face, at, now_s
            if trail.moments and trail.moments[-1][0] - at >= JUMP_S:
                trail.moments.clear()  # the camera's clock was set back
            if not trail.moments or at - trail.moments[-1][0] >= EVERY_S * 0.9:
                expression = face.expression
                label = expression.label if expression.status == "ok" else None
                trail.moments.append((at, label, round(expression.confidence or 0.0, 3) if label else 0.0))
        for track, trail in list(self._trails.items()):
            there = trail.last + now_s - trail.seen_s  # now, by the clock of the camera that it is from
            while trail.moments and there - trail.moments[0][0] > KEPT_S:
                trail.moments.popleft()
            if not trail.moments or len(self._trails) > _MOST:
                del self._trails[track]

    def forget(self) -> None:
        """Keep nothing: people have changed, and nobody must be shown under what they were called before."""
        self._trails.clear()

    def moments(self, *, track: int, person: int | None = None, number: int | None = None) -> list[list[Any]]:
        """Return the moments of a track, and of other tracks of the same person or number, in order of time."""
        own = [trail for key, trail in self._trails.items() if key == track or _same(trail.face, person, number)]
        return sorted([list(moment) for trail in own for moment in trail.moments], key=lambda moment: moment[0])

    def here(self, now_s: float) -> Iterator[Trail]:
        """Yield who is in view at ``now_s``, monotonic seconds."""
        yield from (trail for trail in self._trails.values() if now_s - trail.seen_s <= HERE_S)


def _same(face: Face, person: int | None, number: int | None) -> bool:
    identity = face.identity
    if identity.status == "known":
        return person is not None and identity.person == person
    return number is not None and identity.status == "unknown" and identity.number == number
