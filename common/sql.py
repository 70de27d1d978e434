"""What plain SQL is written against: the part of ``sqlite3`` that ``common/postgres.py`` has, too.

Statements are such that both understand them: ``?`` for values, ``IS NOT NULL``, ``ON CONFLICT … DO UPDATE``, columns
named in full where two tables have them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Row(Protocol):
    """A row; its columns by place or by name."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...

    @property
    def lastrowid(self) -> int | None: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction that goes on, of whichever kind the store is."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...


def last_number(connection: Connection, table: str, column: str) -> int:
    """Return the highest number that a table's rows ever had, 0 when there was never one."""
    if isinstance(connection, sqlite3.Connection):
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return int(row[0]) if row else 0
    value, called = connection.execute(f"SELECT last_value, is_called FROM {table}_{column}_seq").fetchone()
    return int(value) if called else 0
