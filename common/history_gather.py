"""Results on their way into history: one row a face and second, kept back until it is known whose it is.

Pure: results and corrections go in, batches to be written come out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from common.expressions import EXPRESSIONS
from common.history_rows import Tally
from common.messages import Correction, Face, Identity, Result

WATCH_GAP_S = 5.0  # a camera without results for so long was not watching meanwhile
SETTLED_S = 1.0  # a second is complete so long after its end
GONE_S = 30.0  # a track that was not seen for so long has ended
MAX_SECONDS = 200_000  # that may wait to be written; the oldest are lost, and counted

Owner = tuple[int | None, int | None]  # person, number of an unknown person
NOBODY: Owner = (None, None)


@dataclass(slots=True)
class Gathered:
    """A track's seconds that are not written yet."""

    camera: str
    owner: Owner = NOBODY
    second: int = 0
    tally: Tally = field(default_factory=Tally)
    done: deque[tuple[int, bytes]] = field(default_factory=deque)
    last_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRows:
    """A track's seconds, to be written under its owner."""

    track: int
    camera: str
    owner: Owner
    seconds: list[tuple[int, bytes]]


@dataclass(slots=True)
class Batch:
    """What is to be written in one go.

    Attributes:
        owners: tracks that are somebody else's than was written.
        dropped: tracks of which nothing may be kept.
        watches: when cameras gave results: camera, begin, end; the begin says which span it is.
    """

    rows: list[TrackRows] = field(default_factory=list)
    owners: dict[int, Owner] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    watches: dict[tuple[str, float], float] = field(default_factory=dict)

    def add(self, later: Batch) -> None:
        """Append what came later."""
        self.rows += later.rows
        # Rows say whose a track is by then.
        self.owners |= {row.track: row.owner for row in later.rows if row.track in self.owners} | later.owners
        self.dropped |= later.dropped
        self.watches |= later.watches

    def split(self, most: int) -> tuple[Batch, Batch]:
        """Return what is to be written first, with about ``most`` seconds, and what comes after it.

        All that is no seconds comes first, and counts for the seconds that come after it: those are given to whose they
        are by now, and those of which nothing may be kept are left out.
        """
        rows = [
            TrackRows(
                track=row.track, camera=row.camera, owner=self.owners.get(row.track, row.owner), seconds=row.seconds
            )
            for row in self.rows
            if row.track not in self.dropped
        ]
        count = seconds = 0
        while count < len(rows) and seconds < most:
            seconds += len(rows[count].seconds)
            count += 1
        first = Batch(rows=rows[:count], owners=self.owners, dropped=self.dropped, watches=self.watches)
        return first, Batch(rows=rows[count:])

    def __bool__(self) -> bool:
        return bool(self.rows or self.owners or self.dropped or self.watches)

    def __len__(self) -> int:
        return sum(len(rows.seconds) for rows in self.rows)


class Gatherer:
    """Counts what results say by track and second.

    Args:
        undecided_s: seconds of a face that is nobody yet are kept so long, and written when it becomes somebody.

    Attributes:
        nobody: seconds that were of nobody in the end, and not written.
    """

    def __init__(self, undecided_s: float) -> None:
        self._undecided_s = undecided_s
        self._tracks: dict[int, Gathered] = {}
        self._watch: dict[str, list[float]] = {}
        self._owners: dict[int, Owner] = {}
        self._dropped: set[int] = set()
        self.nobody = 0

    def result(self, result: Result, at: float) -> None:
        """Take one result; ``at``: when its picture was taken, by this machine's clock."""
        span = self._watch.get(result.camera)
        if span is None or at - span[1] > WATCH_GAP_S:
            self._watch[result.camera] = [at, at]
        else:
            span[1] = max(span[1], at)
        if result.analysed:
            for face in result.faces:
                self._face(face, result.camera, at)

    def correction(self, correction: Correction) -> None:
        """What was said of a track was somebody else: all of it, from its first second."""
        if correction.now.withheld:
            self._drop(correction.track)
        else:
            self._own(correction.track, _owner(correction.now))

    def forget(self, people: set[int], numbers: set[int]) -> None:
        """Keep nothing of anybody who is not among these any more."""
        for track, gathered in list(self._tracks.items()):
            person, number = gathered.owner
            if (person is not None and person not in people) or (number is not None and number not in numbers):
                del self._tracks[track]

    def begin_anew(self) -> int:
        """Go on with nothing but whose the tracks are; return how many seconds of nobody are lost by it."""
        lost = sum(len(gathered.done) for gathered in self._tracks.values())
        self.nobody += lost
        self._tracks, self._watch = {}, {}
        return lost

    def batch(self, now: float, *, final: bool = False) -> Batch:
        """Return what can be written now; ``final``: everything."""
        batch = Batch(owners=self._owners, dropped=self._dropped)
        self._owners, self._dropped = {}, set()
        batch.watches = {(camera, span[0]): span[1] for camera, span in self._watch.items() if span[1] > span[0]}
        for track, gathered in list(self._tracks.items()):
            if final or now - gathered.second >= 1.0 + SETTLED_S:
                self._finish(gathered)
            if gathered.owner != NOBODY and gathered.done:
                rows = TrackRows(track=track, camera=gathered.camera, owner=gathered.owner, seconds=list(gathered.done))
                batch.rows.append(rows)
                gathered.done.clear()
            while gathered.done and gathered.done[0][0] < now - self._undecided_s:
                gathered.done.popleft()
                self.nobody += 1
            if now - gathered.last_at > max(GONE_S, self._undecided_s):
                self.nobody += len(gathered.done)
                del self._tracks[track]
        return batch

    # --- inside ---

    def _face(self, face: Face, camera: str, at: float) -> None:
        if face.identity.withheld:
            self._drop(face.track)
            return
        gathered = self._tracks.get(face.track)
        if gathered is None:
            gathered = self._tracks[face.track] = Gathered(camera, second=int(at))
        owner = _owner(face.identity)
        if owner not in (NOBODY, gathered.owner):
            if gathered.owner != NOBODY:
                self._owners[face.track] = owner
            gathered.owner = owner
        if int(at) > gathered.second:
            self._finish(gathered)
            gathered.second = int(at)
        gathered.last_at = at
        expression = face.expression
        if expression.status == "ok" and expression.smoothed is not None:
            gathered.tally.add([getattr(expression.smoothed, name) for name in EXPRESSIONS])
        else:
            gathered.tally.add(None, "pending" if expression.status == "pending" else expression.reason)

    def _finish(self, gathered: Gathered) -> None:
        if gathered.tally.frames:
            gathered.done.append((gathered.second, gathered.tally.packed()))
            gathered.tally = Tally()

    def _own(self, track: int, owner: Owner) -> None:
        gathered = self._tracks.get(track)
        if gathered is not None:
            gathered.owner = owner
        self._owners[track] = owner

    def _drop(self, track: int) -> None:
        # Once a track, not once a frame: what is to be deleted is deleted by the first.
        gathered = self._tracks.pop(track, None)
        if gathered is not None or track in self._owners:
            self._owners.pop(track, None)
            self._dropped.add(track)


def _owner(identity: Identity) -> Owner:
    if identity.status == "known":
        return identity.person, None
    return None, identity.number if identity.status == "unknown" else None
