"""History as it is asked for: whose there is, the day as a ribbon, how much of it could be assessed, notes.

For the page, the command line and reports. Everything here takes a ``Ledger`` (``common/ledger.py``) and unix seconds,
and raises ``LedgerError`` when the store cannot be read or written. Episodes are in ``common/alert_store.py``.

    with Ledger(config.storage.place) as ledger:
        ada = Subject(person=3)
        day = ribbon(ledger, ada, begin, end)           # 1440 minutes: expression, seconds present and assessed
        share = summary(ledger, ada, begin, end).share  # "assessed 71 % of the time"
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import history_rows
from common.expressions import EXPRESSIONS, ExpressionName
from common.history_rows import REASONS, Steps
from common.ledger import Ledger
from common.sql import Connection

MAX_NOTE = 2000  # characters
OUTSIDE = 60  # seconds: tracks that end so long before a period are not looked at


class HistoryError(ValueError):
    """What was asked cannot be done; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Subject:
    """Whose history: an enrolled person's, or that of an unknown person's number. One of the two is given."""

    person: int | None = None
    unknown: int | None = None

    def __post_init__(self) -> None:
        if (self.person is None) == (self.unknown is None):
            raise HistoryError("name a person, or the number of an unknown person")

    @property
    def number(self) -> int:
        """The person's number, or minus the unknown person's, as minutes are kept under."""
        return self.person if self.person is not None else -(self.unknown or 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ribbon:
    """A period in steps of equal length; every step is there, whether anything was seen or not.

    Attributes:
        begin, step_s: of step i, the beginning is ``begin + i * step_s``, unix seconds.
        watched_s: (N,) a camera gave results for so long.
        present_s, assessed_s: (N,) the face was in a picture, and could be assessed, for so long.
        dominant: (N,) int8, index into ``EXPRESSIONS`` of the expression that showed most; -1: nothing was assessed.
        probabilities: (N, 7) means over the assessed time, NaN where there is none.
        reasons_s: (N, len(REASONS)) present time that could not be assessed, by reason.
    """

    begin: float
    step_s: int
    watched_s: NDArray[np.float64]
    present_s: NDArray[np.float64]
    assessed_s: NDArray[np.float64]
    dominant: NDArray[np.int8]
    probabilities: NDArray[np.float64]
    reasons_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.dominant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A subject's period in a few numbers. The four parts of the time add up to ``period_s``; none is "neutral".

    Attributes:
        period_s: the part of the period that has passed.
        offline_s: no camera gave results.
        absent_s: a camera watched, the face was in no picture.
        unassessed_s: the face was there and could not be assessed; by reason in ``reasons_s``.
        assessed_s: by the expression that showed most in ``expressions_s``.
        first_at, last_at: of what was seen; None: nothing was.
    """

    subject: Subject
    begin: float
    end: float
    period_s: float
    offline_s: float
    absent_s: float
    unassessed_s: float
    assessed_s: float
    reasons_s: dict[str, float]
    expressions_s: dict[ExpressionName, float]
    mean: dict[ExpressionName, float] | None
    first_at: float | None
    last_at: float | None

    @property
    def share(self) -> float:
        """Part of the time that could be assessed, 0 … 1: "assessed 71 % of the time"."""
        return self.assessed_s / self.period_s if self.period_s else 0.0

    @property
    def share_present(self) -> float:
        """The same of the time in which the face was in a picture."""
        present = self.assessed_s + self.unassessed_s
        return self.assessed_s / present if present else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that somebody wrote down about a moment; ``subject`` None: about no one in particular (old ones)."""

    id: int
    subject: Subject | None
    at: float
    text: str
    who: str
    created_at: float


def subjects(ledger: Ledger, begin: float, end: float, *, consent_at: float | None = None) -> list[Subject]:
    """Return whoever was seen in a period: people first, by number.

    Args:
        consent_at: nobody whose consent was refused or over at this moment.
    """
    refusing = "SELECT id FROM person WHERE consent <> 'given' OR consent_until <= ?"
    tracks = "SELECT DISTINCT person_id, unknown_id FROM history_track WHERE end_at >= ? AND begin_at < ?"
    with ledger.read() as connection:
        found = {_subject(row["person_id"], row["unknown_id"]) for row in connection.execute(tracks, (begin, end))}
        for number in history_rows.minute_subjects(connection):
            inside = "SELECT 1 FROM history_minute WHERE subject = ? AND minute >= ? AND minute < ? LIMIT 1"
            if connection.execute(inside, (number, begin // 60, -(-end // 60))).fetchone():
                found.add(_subject(number if number > 0 else None, -number if number < 0 else None))
        if consent_at is not None:
            found -= {Subject(person=row["id"]) for row in connection.execute(refusing, (consent_at,))}
    return sorted((one for one in found if one), key=lambda one: (one.person is None, one.person or one.unknown or 0))


def steps(ledger: Ledger, subject: Subject, begin: float, end: float, *, step_s: int = 1) -> Steps:
    """Return what was seen of a subject, in steps of ``step_s``; old history is there by the minute only."""
    with ledger.read() as connection:
        recent, old = _seconds(connection, subject, begin, end), _minutes(connection, subject, begin, end)
    if step_s == 1 and not len(old):
        return recent
    return history_rows.gathered((old, recent), max(60 if len(old) else 1, step_s))


def looks(ledger: Ledger, subject: Subject, begin: float, end: float) -> Steps:
    """Return a period by the second; a minute of old history is its assessed seconds, each like the minute's mean."""
    with ledger.read() as connection:
        recent, old = _seconds(connection, subject, begin, end), _minutes(connection, subject, begin, end)
    if not len(old):
        return recent
    counts = np.rint(old.assessed_s).astype(np.int64)
    index = np.repeat(np.arange(len(old)), counts)
    offset = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    spread = Steps(
        at=old.at[index] + offset,
        present_s=np.ones(len(index)),
        assessed_s=np.ones(len(index)),
        probabilities=old.probabilities[index],
        dominant_s=np.zeros((len(index), len(EXPRESSIONS))),
        reasons_s=np.zeros((len(index), len(REASONS))),
    )
    return history_rows.gathered((spread, recent), 1)


def is_old(ledger: Ledger, subject: Subject, begin: float, end: float) -> bool:
    """Return whether any of a period is kept by the minute only."""
    inside = "SELECT 1 FROM history_minute WHERE subject = ? AND minute >= ? AND minute < ? LIMIT 1"
    with ledger.read() as connection:
        return connection.execute(inside, (subject.number, begin // 60, -(-end // 60))).fetchone() is not None


def ribbon(ledger: Ledger, subject: Subject, begin: float, end: float, *, step_s: int = 60) -> Ribbon:
    """Return a period as a ribbon.

    Args:
        step_s: length of a step; whole seconds. History that is only kept by the minute is spread evenly over it.

    Raises:
        HistoryError: no period, or one of more than 100,000 steps.
    """
    count = int(np.ceil((end - begin) / step_s)) if step_s > 0 and end > begin else 0
    if not 0 < count <= 100_000:
        raise HistoryError("a period of 1 to 100,000 steps can be shown: choose a longer step or a shorter period")
    with ledger.read() as connection:
        old, recent = _minutes(connection, subject, begin, end), _seconds(connection, subject, begin, end)
        watched = _watched(connection, begin, end)
    parts = (_spread(old, begin, step_s, count), recent)
    index = [np.floor((part.at - begin) / step_s).astype(np.int64).clip(0, count - 1) for part in parts]
    assessed_s, dominant_s = np.zeros(count), np.zeros((count, len(EXPRESSIONS)))
    present_s, reasons_s, weighted = np.zeros(count), np.zeros((count, len(REASONS))), np.zeros_like(dominant_s)
    for place, part in zip(index, parts, strict=True):
        np.add.at(present_s, place, part.present_s)
        np.add.at(assessed_s, place, part.assessed_s)
        np.add.at(dominant_s, place, part.dominant_s)
        np.add.at(reasons_s, place, part.reasons_s)
        np.add.at(weighted, place, part.probabilities * part.assessed_s[:, None])
    seen = assessed_s > 0
    probabilities = np.full_like(dominant_s, np.nan)
    probabilities[seen] = weighted[seen] / assessed_s[seen, None]
    edges = begin + step_s * np.arange(count + 1, dtype=np.float64)
    watched_s = np.zeros(count)
    for one_begin, one_end in watched:
        watched_s += np.clip(np.minimum(edges[1:], one_end) - np.maximum(edges[:-1], one_begin), 0, None)
    return Ribbon(
        begin=begin,
        step_s=step_s,
        watched_s=watched_s,
        present_s=np.minimum(present_s, step_s),
        assessed_s=np.minimum(assessed_s, step_s),
        dominant=np.where(seen, dominant_s.argmax(axis=1), -1).astype(np.int8),
        probabilities=probabilities,
        reasons_s=reasons_s,
    )


def summary(ledger: Ledger, subject: Subject, begin: float, end: float, *, now: float | None = None) -> Summary:
    """Return a subject's period in a few numbers; what lies after ``now`` does not count. Raises HistoryError: none."""
    until = min(end, time.time() if now is None else now)
    if until <= begin:
        raise HistoryError("the period has not begun, or ends before it begins")
    with ledger.read() as connection:
        parts = (_minutes(connection, subject, begin, until), _seconds(connection, subject, begin, until))
        watched = sum(last - first for first, last in _watched(connection, begin, until))
    whole = history_rows.gathered(parts, 60)
    period, assessed = until - begin, float(whole.assessed_s.sum())
    present = min(period, float(whole.present_s.sum()))
    # Rows count whole seconds, spans do not: what was seen was watched.
    watched = min(period, max(watched, present))
    weighted = (whole.probabilities * whole.assessed_s[:, None]).sum(axis=0)
    return Summary(
        subject=subject,
        begin=begin,
        end=end,
        period_s=period,
        offline_s=period - watched,
        absent_s=watched - present,
        unassessed_s=max(0.0, present - assessed),
        assessed_s=min(assessed, present),
        reasons_s={name: float(s) for name, s in zip(REASONS, whole.reasons_s.sum(axis=0), strict=True) if s > 0},
        expressions_s=dict(zip(EXPRESSIONS, whole.dominant_s.sum(axis=0).tolist(), strict=True)),
        mean=dict(zip(EXPRESSIONS, (weighted / assessed).tolist(), strict=True)) if assessed else None,
        first_at=min((float(part.at[0]) for part in parts if len(part)), default=None),
        last_at=max((float(part.at[-1]) for part in parts if len(part)), default=None),
    )


# --- notes ---


def add_note(ledger: Ledger, subject: Subject, at: float, text: str, who: str) -> Note:
    """Write down something about a moment. Raises HistoryError: no text, too long, or nobody of that number."""
    text = text.strip()
    if not 0 < len(text) <= MAX_NOTE:
        raise HistoryError(f"a note has 1 to {MAX_NOTE} characters, this one has {len(text)}")
    person = subject.person
    fields = (person, subject.unknown, at, text, who[:128], time.time())
    added = "INSERT INTO note (person_id, unknown_id, at, text, who, created_at) VALUES (?, ?, ?, ?, ?, ?)"
    with ledger.write() as connection:
        if person is not None and not connection.execute("SELECT 1 FROM person WHERE id = ?", (person,)).fetchone():
            raise HistoryError(f"nobody of the number {person} is enrolled")
        number = connection.execute(added, fields).lastrowid
    return Note(id=int(number or 0), subject=subject, at=at, text=text, who=who[:128], created_at=fields[5])


def notes(ledger: Ledger, begin: float, end: float, *, subject: Subject | None = None) -> list[Note]:
    """Return the notes of a period (of one subject, or all), oldest first."""
    chosen, fields = "", [begin, end]
    if subject is not None:
        chosen = " AND person_id = ?" if subject.person is not None else " AND unknown_id = ?"
        fields.append(abs(subject.number))
    return _notes(ledger, f"at >= ? AND at < ?{chosen}", fields)


def loose_notes(ledger: Ledger, begin: float = 0.0, end: float = 1e12) -> list[Note]:
    """Return the notes about no one in particular, oldest first."""
    return _notes(ledger, "at >= ? AND at < ? AND person_id IS NULL AND unknown_id IS NULL", [begin, end])


def _notes(ledger: Ledger, chosen: str, fields: list[float]) -> list[Note]:
    with ledger.read() as connection:
        rows = connection.execute(f"SELECT * FROM note WHERE {chosen} ORDER BY at", fields).fetchall()
    return [
        Note(
            id=row["id"],
            subject=_subject(row["person_id"], row["unknown_id"]),
            at=row["at"],
            text=row["text"],
            who=row["who"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


def remove_note(ledger: Ledger, note: int) -> None:
    """Delete a note. Raises HistoryError: there is none of that number."""
    with ledger.write() as connection:
        if not connection.execute("DELETE FROM note WHERE id = ?", (note,)).rowcount:
            raise HistoryError(f"there is no note {note}")


# --- inside ---


def _subject(person: int | None, unknown: int | None) -> Subject | None:
    if person is not None:
        return Subject(person=person)
    return None if unknown is None else Subject(unknown=unknown)


def _seconds(connection: Connection, subject: Subject, begin: float, end: float) -> Steps:
    own = "person_id" if subject.person is not None else "person_id IS NULL AND unknown_id"
    rows = connection.execute(
        f"SELECT second, seen FROM history_track JOIN history_second USING (track) WHERE {own} = ? "
        "AND begin_at < ? AND end_at >= ? AND second >= ? AND second < ?",
        (abs(subject.number), end, begin - OUTSIDE, begin, end),
    ).fetchall()
    return history_rows.seconds([row[0] for row in rows], [row[1] for row in rows])


def _minutes(connection: Connection, subject: Subject, begin: float, end: float) -> Steps:
    rows = connection.execute(
        "SELECT minute, seen FROM history_minute WHERE subject = ? AND minute >= ? AND minute < ?",
        (subject.number, begin // 60, -(-end // 60)),
    ).fetchall()
    return history_rows.minutes([row[0] for row in rows], [row[1] for row in rows])


def _spread(minutes: Steps, begin: float, step_s: int, count: int) -> Steps:
    """Return what minutes hold, by the second where steps are shorter: each second has a sixtieth of its minute.

    When in its minute somebody was there is not kept; but that they were there in a sixth of it only, with steps of ten
    seconds, would be made up.
    """
    if step_s >= 60 or not len(minutes):
        return minutes
    seconds = np.arange(60)
    at = (minutes.at[:, None] + seconds).ravel()
    row = np.repeat(np.arange(len(minutes)), 60)
    inside = (at >= begin) & (at < begin + count * step_s)
    at, row = at[inside], row[inside]
    return Steps(
        at=at,
        present_s=minutes.present_s[row] / 60,
        assessed_s=minutes.assessed_s[row] / 60,
        probabilities=minutes.probabilities[row],
        dominant_s=minutes.dominant_s[row] / 60,
        reasons_s=minutes.reasons_s[row] / 60,
    )


def _watched(connection: Connection, begin: float, end: float) -> list[tuple[float, float]]:
    """Return when any camera gave results: spans within the period that do not overlap, ascending."""
    rows = connection.execute(
        "SELECT begin_at, end_at FROM history_watch WHERE end_at > ? AND begin_at < ? ORDER BY begin_at", (begin, end)
    )
    spans: list[tuple[float, float]] = []
    for first, last in rows:
        first, last = max(first, begin), min(last, end)
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last))
        else:
            spans.append((first, last))
    return spans
