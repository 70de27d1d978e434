"""What history, episodes and notes hold of a subject, for whoever changes people: moved, or deleted, all of it.

Called inside a transaction of the store. A subject is a person's number, or minus an unknown person's.
"""

from __future__ import annotations

from sqlalchemy import Connection

from common import alert_store, history_upkeep
from common.store import Store


def reassign(store: Store, connection: Connection, was: int, now: int) -> None:
    """Let everything of one subject be another one's: two people were one, or an unknown person has got a name."""
    plain = store.plain(connection)
    history_upkeep.reassign(plain, was, now)
    alert_store.reassign(plain, was, now)


def erase(store: Store, connection: Connection, subject: int) -> tuple[int, int]:
    """Delete everything of a subject; return how many rows of history (tracks and minutes), and episodes."""
    plain = store.plain(connection)
    return history_upkeep.erase(plain, subject), alert_store.erase(plain, subject)
