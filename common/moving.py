"""Moving a store: all of an SQLite file into an empty PostgreSQL database, in one transaction, checked row by row.

What is sealed stays sealed: the key does not change, and nothing is opened on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Float, LargeBinary, Table, Text

from common import postgres, schema
from common.backend import Busy
from common.place import Place
from common.postgres import Session
from common.store import Store, StoreError

BATCH = 5000  # rows


class MoveError(RuntimeError):
    """The store cannot be moved; the text says why. Nothing was changed, neither here nor there."""


def move(place: Place, url: str, *, who: str, tell: Callable[[str, int], None] = lambda table, rows: None) -> int:
    """Copy the store of a data directory into a database; return how many rows it has there.

    Args:
        tell: hears of each table when it has arrived, with its rows.

    Raises:
        MoveError: there is no store here, the database is not empty or cannot be written, or what arrived is not what
            was sent.
    """
    if not place.file.is_file():
        raise MoveError(f"there is no store {place.file} to move: give its --data-dir")
    target = Place(place.data_dir, url)
    try:
        with Store(replace(place, url=None), who=who) as source, source.write() as reading:
            # Held until the end: whoever still writes there waits, and is told.
            plain = source.plain(reading)
            assert isinstance(plain, sqlite3.Connection)
            with _emptied(target, who) as session:
                total = 0
                for table in schema.METADATA.sorted_tables:
                    rows = _copied(plain, session, table)
                    _number(plain, session, table)
                    tell(table.name, rows)
                    total += rows
                session.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(schema.VERSION).encode(),))
            return total
    except StoreError as error:
        raise MoveError(f"{error}") from error
    except Busy as error:
        raise MoveError(f"another process is using {target}: try again") from error
    except postgres.Error as error:
        raise MoveError(f"the store could not be moved to {target}: {postgres.said(error)}") from error


@contextlib.contextmanager
def _emptied(target: Place, who: str) -> Iterator[Session]:
    """A transaction on the database, whose tables are there and hold nothing."""
    assert target.url is not None
    _refuse_another(target)
    with Store(target, who=who) as made, made.write() as connection:
        session = made.plain(connection)
        assert isinstance(session, Session)
        _refuse_full(session, target)
        session.execute("DELETE FROM meta WHERE key <> 'version'")
        yield session


def _refuse_another(target: Place) -> None:
    """Look before anything is made there: another store's key would be refused with words that do not help here."""
    assert target.url is not None
    with postgres.connect(target.url) as connection:
        session = Session(connection)
        if session.execute("SELECT to_regclass('meta')").fetchall()[0][0] is not None:
            _refuse_full(session, target)


def _refuse_full(session: Session, target: Place) -> None:
    for table in schema.METADATA.sorted_tables:
        there = session.execute("SELECT to_regclass(?)", (table.name,)).fetchall()[0][0]
        if table is schema.META or there is None:  # a store that was only opened has a key and nothing else
            continue
        if session.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() is not None:
            raise MoveError(
                f"{target} is not empty (its table {table.name} has rows), and two stores cannot be put together: "
                "make another database"
            )


def _copied(plain: sqlite3.Connection, session: Session, table: Table) -> int:
    """Copy a table and read it back. Raises MoveError: that is not what was sent."""
    columns = [column.name for column in table.columns]
    names = ", ".join(columns)
    where = " WHERE key <> 'version'" if table is schema.META else ""
    sent = _Sum(table)
    with session.connection.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN".encode()) as copy:
        for row in _batched(plain.execute(f"SELECT {names} FROM {table.name}{where}")):
            copy.write_row(sent.add(row))
    arrived = _Sum(table)
    with session.connection.cursor(name="arrived") as reader:
        reader.itersize = BATCH
        reader.execute(f"SELECT {names} FROM {table.name}{where}".encode())
        for row in reader:
            arrived.add(row)
    if (sent.rows, sent.total) != (arrived.rows, arrived.total):
        raise MoveError(
            f"of the table {table.name} {arrived.rows} rows arrived of {sent.rows}, or they are not the same: "
            "nothing was changed"
        )
    return sent.rows


def _number(plain: sqlite3.Connection, session: Session, table: Table) -> None:
    """Go on with numbers where the old store was: none is ever used twice."""
    column = table.autoincrement_column
    if column is None or table.name == "meta":
        return
    counted = plain.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).fetchone()
    highest = plain.execute(f"SELECT max({column.name}) FROM {table.name}").fetchone()[0]
    last = max(counted[0] if counted else 0, highest or 0)
    if last > 0:
        session.execute(f"SELECT setval('{table.name}_{column.name}_seq', ?)", (last,))


class _Sum:
    """A sum over rows, whatever their order."""

    def __init__(self, table: Table) -> None:
        kinds = [column.type for column in table.columns]
        self._real = [isinstance(kind, Float) for kind in kinds]
        self._bytes = [isinstance(kind, LargeBinary) for kind in kinds]
        self._words = [isinstance(kind, Text) or kind.python_type is str for kind in kinds]
        self.rows = 0
        self.total = 0

    def add(self, row: Sequence[Any]) -> list[Any]:
        """Count a row; return it as it is to be kept: SQLite would take a whole number for a real one."""
        kept: list[Any] = []
        digest = hashlib.blake2b(digest_size=16)
        for value, real, blob, words in zip(row, self._real, self._bytes, self._words, strict=True):
            if value is None:
                kept.append(None)
                digest.update(b"\0")
                continue
            if real:
                value = float(value)
                part = struct.pack("<d", value)
            elif blob:
                value = part = bytes(value)
            elif words:
                value = str(value).replace("\0", "")  # PostgreSQL has no such character
                part = value.encode("utf-8", "surrogatepass")
            else:
                value = int(value)
                part = str(value).encode()
            kept.append(value)
            digest.update(b"\1" + len(part).to_bytes(4, "little") + part)
        self.rows += 1
        self.total = (self.total + int.from_bytes(digest.digest(), "little")) % 2**128
        return kept


def _batched(cursor: sqlite3.Cursor) -> Iterable[Sequence[Any]]:
    while rows := cursor.fetchmany(BATCH):
        yield from rows
