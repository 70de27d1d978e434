"""What history, episodes and notes hold of a subject, for whoever changes people: moved, or deleted, all of it.

Called inside a transaction of the ``Store``. A subject is a person's number, or minus an unknown person's.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection

from common import alert_store, history_upkeep


def reassign(connection: Connection, was: int, now: int) -> None:
    """Let everything of one subject be another one's: two people were one, or an unknown person has got a name."""
    plain = _plain(connection)
    history_upkeep.reassign(plain, was, now)
    alert_store.reassign(plain, was, now)


def erase(connection: Connection, subject: int) -> tuple[int, int]:
    """Delete everything of a subject; return how many rows of history (tracks and minutes), and episodes."""
    plain = _plain(connection)
    return history_upkeep.erase(plain, subject), alert_store.erase(plain, subject)


def _plain(connection: Connection) -> sqlite3.Connection:
    plain = connection.connection.driver_connection
    assert isinstance(plain, sqlite3.Connection)
    return plain
