"""History in the store: written in batches, made smaller as it grows old, moved and deleted with its people.

Everything here happens inside the caller's transaction (``Ledger.write``, or what ``common/records.py`` makes of the
store's), in SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import history_rows
from common.history_gather import Batch
from common.sql import Connection

MAX_ROLLED = 20_000  # seconds in one transaction: others want to write, too
ORPHAN_S = 3600.0  # a track that is nobody's is deleted after this


@dataclass(slots=True)
class Swept:
    """What a sweep did, in rows."""

    rolled: int = 0
    seconds: int = 0
    minutes: int = 0
    more: bool = False  # there is more to do: call again


def write(connection: Connection, batch: Batch) -> int:
    """Write a batch; return how many seconds. Nobody who was forgotten meanwhile comes back by it, and of nobody whose
    consent has ended meanwhile anything is added.
    """
    owners = [rows.owner for rows in batch.rows] + list(batch.owners.values())
    people = _allowing(connection, {person for person, _ in owners if person is not None})
    for track in batch.dropped:
        connection.execute("DELETE FROM history_track WHERE track = ?", (track,))
    tracks, seconds = [], []
    for rows in batch.rows:
        person, number = rows.owner
        if rows.track in batch.dropped or (person is not None and person not in people):
            continue
        times = [second for second, _ in rows.seconds]
        tracks.append((rows.track, rows.camera, person, number, min(times), max(times)))
        seconds += [(rows.track, second, seen) for second, seen in rows.seconds]
    kept = _written(connection, tracks)
    for track, second, seen in seconds:
        before = kept.get((track, second))
        kept[track, second] = seen if before is None else history_rows.together(before, seen)
    seconds = [(track, second, kept[track, second]) for track, second in {row[:2]: None for row in seconds}]
    if seconds:  # few statements, however many tracks: a server may be far away
        connection.executemany(
            "INSERT INTO history_track (track, camera, person_id, unknown_id, begin_at, end_at) "
            "VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (track) DO UPDATE SET person_id = excluded.person_id, unknown_id = excluded.unknown_id, "
            "begin_at = CASE WHEN excluded.begin_at < history_track.begin_at THEN excluded.begin_at "
            "ELSE history_track.begin_at END, "
            "end_at = CASE WHEN excluded.end_at > history_track.end_at THEN excluded.end_at "
            "ELSE history_track.end_at END",
            tracks,
        )
        connection.executemany(
            "INSERT INTO history_second (track, second, seen) VALUES (?, ?, ?) "
            "ON CONFLICT (track, second) DO UPDATE SET seen = excluded.seen",
            seconds,
        )
    for track, (person, number) in batch.owners.items():
        if person is None or person in people:
            sql = "UPDATE history_track SET person_id = ?, unknown_id = ? WHERE track = ?"
            connection.execute(sql, (person, number, track))
        else:
            connection.execute("DELETE FROM history_track WHERE track = ?", (track,))
    for (camera, begin), end in batch.watches.items():
        sql = "UPDATE history_watch SET end_at = ? WHERE camera = ? AND begin_at = ?"
        if not connection.execute(sql, (end, camera, begin)).rowcount:
            sql = "INSERT INTO history_watch (camera, begin_at, end_at) VALUES (?, ?, ?)"
            connection.execute(sql, (camera, begin, end))
    return len(seconds)


def roll_up(connection: Connection, before: float, *, most: int = MAX_ROLLED) -> Swept:
    """Make minutes of the seconds of tracks that ended before a moment (unix seconds)."""
    done = Swept()
    rows = connection.execute(
        "SELECT track, camera, person_id, unknown_id FROM history_track WHERE end_at < ? ORDER BY end_at", (before,)
    ).fetchall()
    for track, camera, person, number in rows:
        if done.seconds >= most:
            done.more = True
            break
        seen = connection.execute("SELECT second, seen FROM history_second WHERE track = ?", (track,)).fetchall()
        if person is not None or number is not None:
            minutes = history_rows.gathered((history_rows.seconds([r[0] for r in seen], [r[1] for r in seen]),), 60)
            add_minutes(connection, person if person is not None else -number, camera, minutes)
        connection.execute("DELETE FROM history_track WHERE track = ?", (track,))
        done.rolled += 1
        done.seconds += len(seen)
    return done


def add_minutes(connection: Connection, subject: int, camera: str, minutes: history_rows.Steps) -> None:
    """Add steps of 60 s to a subject's minutes; those that are there already are put together with them."""
    if not len(minutes):
        return
    first, last = int(minutes.at[0]) // 60, int(minutes.at[-1]) // 60
    there = connection.execute(
        "SELECT minute, seen FROM history_minute WHERE subject = ? AND camera = ? AND minute BETWEEN ? AND ?",
        (subject, camera, first, last),
    ).fetchall()
    if there:
        old = history_rows.minutes([row[0] for row in there], [row[1] for row in there])
        minutes = history_rows.gathered((old, minutes), 60)
    connection.executemany(
        "INSERT INTO history_minute (subject, minute, camera, seen) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (subject, minute, camera) DO UPDATE SET seen = excluded.seen",
        [(subject, minute, camera, seen) for minute, seen in history_rows.packed_minutes(minutes)],
    )


def _written(connection: Connection, tracks: Sequence[tuple[Any, ...]]) -> dict[tuple[int, int], bytes]:
    """What is there of these tracks in the time that they are about to be written for: the clock was set back."""
    if not tracks:
        return {}
    ids = [track for track, *_ in tracks]
    rows = connection.execute(
        f"SELECT track, second, seen FROM history_second WHERE track IN ({', '.join('?' * len(ids))}) "
        "AND second BETWEEN ? AND ?",
        (*ids, min(begin for *_, begin, _ in tracks), max(end for *_, end in tracks)),
    ).fetchall()
    return {(track, second): bytes(seen) for track, second, seen in rows}


def sweep(connection: Connection, now: float, *, second_days: float, minute_days: float) -> Swept:
    """Roll up what is older than ``second_days``, delete what is older than ``minute_days`` and what is nobody's."""
    done = roll_up(connection, now - second_days * 86400)
    orphan = "DELETE FROM history_track WHERE person_id IS NULL AND unknown_id IS NULL AND end_at < ?"
    connection.execute(orphan, (now - ORPHAN_S,))
    # Strangers who are no longer kept (privacy.unknown_days) take their history along.
    connection.execute(
        "DELETE FROM history_track WHERE person_id IS NULL AND end_at < ? "
        "AND unknown_id NOT IN (SELECT id FROM unknown)",
        (now - ORPHAN_S,),
    )
    kept = {row[0] for row in connection.execute("SELECT id FROM unknown")}
    oldest = int((now - minute_days * 86400) // 60)
    for subject in history_rows.minute_subjects(connection):
        limit = oldest if subject > 0 or -subject in kept else int(now // 60) + 1
        sql = "DELETE FROM history_minute WHERE subject = ? AND minute < ?"
        done.minutes += connection.execute(sql, (subject, limit)).rowcount
    connection.execute("DELETE FROM history_watch WHERE end_at < ?", (now - minute_days * 86400,))
    return done


def reassign(connection: Connection, was: int, now: int) -> None:
    """Let a subject's history be another one's (numbers as ``Subject.number``)."""
    own = "person_id = ? AND unknown_id IS NULL" if was > 0 else "person_id IS NULL AND unknown_id = ?"
    connection.execute(
        f"UPDATE history_track SET person_id = ?, unknown_id = ? WHERE {own}",
        (*_owner(now), abs(was)),
    )
    cameras = "SELECT DISTINCT camera FROM history_minute WHERE subject = ?"
    for (camera,) in connection.execute(cameras, (was,)).fetchall():
        rows = connection.execute(
            "SELECT minute, seen FROM history_minute WHERE subject = ? AND camera = ? ORDER BY minute", (was, camera)
        ).fetchall()
        add_minutes(connection, now, camera, history_rows.minutes([row[0] for row in rows], [row[1] for row in rows]))
    connection.execute("DELETE FROM history_minute WHERE subject = ?", (was,))


def erase(connection: Connection, subject: int) -> int:
    """Delete a subject's history; return how many tracks and minutes."""
    person, number = _owner(subject)
    own = ("person_id = ?", person) if person is not None else ("person_id IS NULL AND unknown_id = ?", number)
    tracks = connection.execute(f"DELETE FROM history_track WHERE {own[0]}", (own[1],)).rowcount
    return tracks + connection.execute("DELETE FROM history_minute WHERE subject = ?", (subject,)).rowcount


def _owner(subject: int) -> tuple[int | None, int | None]:
    return (subject, None) if subject > 0 else (None, -subject)


def _allowing(connection: Connection, people: set[int]) -> set[int]:
    """Return those of some people who are in the store and consent."""
    one = "SELECT 1 FROM person WHERE id = ? AND consent = 'given' AND (consent_until IS NULL OR consent_until > ?)"
    now = time.time()
    return {person for person in people if connection.execute(one, (person, now)).fetchone()}
