"""Episodes as they are asked for and written down: what is open, what was, and each step with its lasting number.

For the page, the command line and reports. Everything here takes a ``Ledger`` (``common/ledger.py``); times are unix
seconds. Only the alerts stage writes. Whoever wants to acknowledge, snooze or judge asks that stage
(``common/control.py``), which answers with the step's serial, or says why not:

    ask(config, "alerts", "acknowledge", episode=12, by="nurse Kim")
    ask(config, "alerts", "snooze", episode=12, by="nurse Kim", minutes=15)
    ask(config, "alerts", "judge", episode=12, by="nurse Kim", judgement="useful")        # or "false alarm"
    ask(config, "alerts", "events", since=118)                 # {"events": JSON list of Alert maps, "last": 131}
    ask(config, "alerts", "test-notification", target="mail")  # without target: all; sent while the answer waits

Each step is published as ``alerts.<camera>`` (``common.messages.Alert``); ``serial`` goes up by one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.ledger import Ledger
from common.sql import Connection, Row, last_number

About = Literal["expression", "unseen", "offline"]
Event = Literal["opened", "escalated", "acknowledged", "snoozed", "judged", "closed"]
Judgement = Literal["useful", "false alarm"]
JUDGEMENTS: tuple[Judgement, ...] = ("useful", "false alarm")


class AlertError(ValueError):
    """What was asked of an episode cannot be done; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One time that somebody needed a look.

    Attributes:
        about: ``expression``; ``unseen``: present, but no face for too long; ``offline``: the camera gives no pictures.
        person, unknown, track: whom it is about: the first that is not None. All None: a camera.
        name: the person's name now; None for others.
        began_at: since when what the rule looks for was so; ``opened_at`` is the rule's duration later.
        label: the expression that weighed most.
        peak: highest probability of the rule's expressions together.
        assessed_s, unassessed_s: of its time so far, how long the face could be assessed, and how long not.
        snapshot: path of the picture's file that was taken when it opened, if one was.
    """

    id: int
    rule: str
    about: About
    camera: str
    person: int | None
    name: str | None
    unknown: int | None
    track: int | None
    label: str | None
    began_at: float
    opened_at: float
    escalated_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str | None
    snoozed_until: float | None
    judgement: Judgement | None
    judged_by: str | None
    closed_at: float | None
    closed_why: str | None
    peak: float | None
    assessed_s: float
    unassessed_s: float
    text: str
    snapshot: str | None

    @property
    def open(self) -> bool:
        return self.closed_at is None

    @property
    def state(self) -> Literal["open", "escalated", "acknowledged", "closed"]:
        """What it waits for, in a word."""
        if self.closed_at is not None:
            return "closed"
        if self.acknowledged_at is not None:
            return "acknowledged"
        return "open" if self.escalated_at is None else "escalated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event of an episode; ``message`` is the JSON of the news as it was published."""

    serial: int
    episode: int
    at: float
    event: Event
    by: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something to be told outside; ``state`` is waiting, sent or failed."""

    id: int
    episode: int | None
    target: str
    title: str
    state: str
    attempts: int
    created_at: float
    done_at: float | None
    error: str | None


def episodes(
    ledger: Ledger,
    *,
    begin: float | None = None,
    end: float | None = None,
    is_open: bool | None = None,
    person: int | None = None,
    unknown: int | None = None,
    camera: str | None = None,
    rule: str | None = None,
    about: About | None = None,
    judgement: Judgement | None = None,
    acknowledged: bool | None = None,
    consent_at: float | None = None,
    limit: int = 200,
    offset: int = 0,
) -> list[Episode]:
    """Return episodes, open ones first, then the newest first.

    Args:
        begin, end: those of which any part lies in this period.
        is_open: only open ones, or only closed ones.
        acknowledged: only those that somebody has acknowledged, or has not.
        consent_at: none about people whose consent was refused or over at this moment.
    """
    wanted: list[tuple[str, Any]] = [
        ("(closed_at IS NULL OR closed_at >= ?)", begin),
        ("began_at < ?", end),
        ("episode.person_id = ?", person),
        ("episode.unknown_id = ?", unknown),
        ("camera = ?", camera),
        ("rule = ?", rule),
        ("about = ?", about),
        ("judgement = ?", judgement),
        ("(closed_at IS NULL) = ?", is_open),
        ("(acknowledged_at IS NOT NULL) = ?", acknowledged),
        (_AGREED, consent_at),
    ]
    given = [(clause, value) for clause, value in wanted if value is not None]
    where = " AND ".join(["TRUE", *(clause for clause, _ in given)])
    order = "ORDER BY closed_at IS NULL DESC, opened_at DESC, episode.id DESC LIMIT ? OFFSET ?"
    with ledger.read() as connection:
        rows = connection.execute(
            f"{_EPISODES} WHERE {where} {order}", (*(value for _, value in given), limit, offset)
        ).fetchall()
    return [_episode(row) for row in rows]


def episode(ledger: Ledger, number: int) -> Episode:
    """Return one episode. Raises AlertError: there is none of that number."""
    with ledger.read() as connection:
        return _episode(row(connection, number))


def steps(ledger: Ledger, number: int) -> list[Step]:
    """Return an episode's steps, oldest first."""
    with ledger.read() as connection:
        rows = connection.execute(
            "SELECT * FROM episode_step WHERE episode_id = ? ORDER BY serial", (number,)
        ).fetchall()
    return [_step(row) for row in rows]


def steps_since(ledger: Ledger, serial: int, *, consent_at: float | None = None, limit: int = 200) -> list[Step]:
    """Return what was published after ``serial``, oldest first. Steps of forgotten people are missing.

    Args:
        consent_at: those of people whose consent was refused or over at this moment are missing, too.
    """
    sql = (
        "SELECT episode_step.* FROM episode_step JOIN episode ON episode.id = episode_step.episode_id "
        "LEFT JOIN person ON person.id = episode.person_id WHERE serial > ?"
    )
    fields: list[float] = [serial, limit]
    if consent_at is not None:
        sql += f" AND {_AGREED}"
        fields.insert(1, consent_at)
    with ledger.read() as connection:
        rows = connection.execute(f"{sql} ORDER BY serial LIMIT ?", fields).fetchall()
    return [_step(row) for row in rows]


def last_serial(ledger: Ledger) -> int:
    """Return the newest step's serial, 0 when there was never one."""
    with ledger.read() as connection:
        return last_number(connection, "episode_step", "serial")


def notifications(ledger: Ledger, *, number: int | None = None, limit: int = 100) -> list[Notification]:
    """Return notifications (of one episode), newest first."""
    where, fields = ("WHERE episode_id = ?", [number]) if number is not None else ("", [])
    with ledger.read() as connection:
        rows = connection.execute(f"SELECT * FROM notification {where} ORDER BY id DESC LIMIT ?", (*fields, limit))
        names = ("id", "target", "title", "state", "attempts", "created_at", "done_at", "error")
        return [Notification(episode=row["episode_id"], **{name: row[name] for name in names}) for row in rows]


# --- for the alerts stage ---


def row(connection: Connection, number: int) -> Row:
    """Return one episode's columns. Raises AlertError: there is none of that number."""
    found: Row | None = connection.execute(f"{_EPISODES} WHERE episode.id = ?", (number,)).fetchone()
    if found is None:
        raise AlertError(f"there is no episode {number}")
    return found


def memories(connection: Connection) -> list[Row]:
    """Return what is needed to go on with open episodes: rows with ``id``, ``memory`` (JSON) and the rest."""
    return connection.execute(f"{_EPISODES} WHERE closed_at IS NULL ORDER BY episode.id").fetchall()


def save(connection: Connection, number: int | None, values: dict[str, Any]) -> int:
    """Write an episode's columns, those of a new one when there is no number yet; return its number."""
    columns = list(values)
    if number is None:
        marks = ", ".join("?" * len(columns))
        done = connection.execute(f"INSERT INTO episode ({', '.join(columns)}) VALUES ({marks})", [*values.values()])
        return int(done.lastrowid or 0)
    sets = ", ".join(f"{column} = ?" for column in columns)
    connection.execute(f"UPDATE episode SET {sets} WHERE id = ?", [*values.values(), number])
    return number


def add_step(connection: Connection, number: int, event: Event, at: float, by: str | None, message: str) -> int:
    """Write a step down; return its serial."""
    sql = "INSERT INTO episode_step (episode_id, at, event, by_whom, message) VALUES (?, ?, ?, ?, ?)"
    return int(connection.execute(sql, (number, at, event, by, message)).lastrowid or 0)


def reassign(connection: Connection, was: int, now: int) -> None:
    """Let everything of a subject be another one's (numbers as ``Subject.number``)."""
    own = "person_id = ? AND unknown_id IS NULL" if was > 0 else "person_id IS NULL AND unknown_id = ?"
    for table in ("episode", "note"):
        connection.execute(
            f"UPDATE {table} SET person_id = ?, unknown_id = ? WHERE {own}",
            (*_owner(now), abs(was)),
        )


def erase(connection: Connection, subject: int) -> int:
    """Delete a subject's episodes, with their steps and notifications, and notes; return how many episodes."""
    person, unknown = _owner(subject)
    own = ("person_id = ?", person) if person is not None else ("person_id IS NULL AND unknown_id = ?", unknown)
    connection.execute(f"DELETE FROM note WHERE {own[0]}", (own[1],))
    return connection.execute(f"DELETE FROM episode WHERE {own[0]}", (own[1],)).rowcount


def sweep(connection: Connection, before: float) -> int:
    """Delete episodes that were closed before this moment; return how many."""
    connection.execute("DELETE FROM notification WHERE state <> 'waiting' AND created_at < ?", (before,))
    connection.execute("DELETE FROM note WHERE at < ?", (before,))
    return connection.execute("DELETE FROM episode WHERE closed_at < ?", (before,)).rowcount


# --- inside ---

_EPISODES = "SELECT episode.*, person.name AS name FROM episode LEFT JOIN person ON person.id = episode.person_id"
_AGREED = "(episode.person_id IS NULL OR (person.consent = 'given' AND COALESCE(person.consent_until > ?, TRUE)))"
_SAME: Sequence[str] = (
    "id", "rule", "about", "camera", "name", "track", "label", "began_at", "opened_at", "escalated_at",
    "acknowledged_at", "acknowledged_by", "snoozed_until", "judgement", "judged_by", "closed_at", "closed_why", "peak",
    "assessed_s", "unassessed_s", "text", "snapshot",
)  # fmt: skip


def _episode(row: Row) -> Episode:
    return Episode(person=row["person_id"], unknown=row["unknown_id"], **{name: row[name] for name in _SAME})


def _step(row: Row) -> Step:
    return Step(
        serial=row["serial"],
        episode=row["episode_id"],
        at=row["at"],
        event=row["event"],
        by=row["by_whom"],
        message=row["message"],
    )


def _owner(subject: int) -> tuple[int | None, int | None]:
    return (subject, None) if subject > 0 else (None, -subject)
