"""The ledger: the part of the store that is written every second (history, episodes, notifications, notes).

The same database as ``common/store.py``, in plain SQL (``common/sql.py``) through Python's own ``sqlite3`` or through
``psycopg``: a stage that uses nothing else of the store stays smaller without SQLAlchemy (``bench/history.py``
prints by how much), and a day of seconds is read in a fraction of the time. Tables: ``common/schema.py``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from common.place import VARIABLE, Place, place_of
from common.sql import Connection

BUSY_MS = 5000
UNAVAILABLE = 75  # exit code of ``python -m common.store``: it may be possible later
VERSION = 5  # of the oldest store that has all of these tables


class LedgerError(RuntimeError):
    """The store cannot be read or written at the moment, or at all; the text says why. Nothing was changed."""


class LedgerUnavailable(LedgerError):
    """It cannot be opened, read or written at the moment; it may be, later."""


class LedgerAway(LedgerUnavailable):
    """Its server was away a moment ago: to ask again at once is of no use."""


class Line(Protocol):
    """A connection to one kind of database.

    Attributes:
        trouble: what it raises when the database cannot do what it was asked.
        passing: … of these, what may be over later.
        away: … of these, what is said without having asked.
    """

    trouble: tuple[type[Exception], ...]
    passing: tuple[type[Exception], ...]
    away: tuple[type[Exception], ...]

    def begin(self, *, writing: bool) -> Connection: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def scrub(self) -> None: ...

    def close(self) -> None: ...

    def said(self, error: Exception, /) -> str: ...


class Ledger:
    """A connection to the store, which is made when there is none. Threads take turns.

    Close it, or use it as a context.

    Args:
        where: the store's place; a path is a data directory.
        busy_ms: how long to wait for another writer. Whoever does not wait long for that does not for a server either.

    Raises:
        LedgerUnavailable: it cannot be opened or made at the moment.
        LedgerError: it cannot be opened or made.
    """

    def __init__(self, where: Place | Path, *, busy_ms: int = BUSY_MS) -> None:
        self.place = place_of(where)
        self._lock = threading.RLock()
        if self.place.url is None:
            self._line: Line = _opened(self.place, busy_ms)
            return
        try:
            from common import postgres
        except ImportError as error:
            raise LedgerError(str(error)) from error
        # A stage silent for 5 s is replaced, and what it holds in memory is lost.
        patience_s = postgres.PATIENCE_S if busy_ms >= BUSY_MS else postgres.STAGE_PATIENCE_S
        self._line = postgres.Line(self.place.url, busy_ms, patience_s)
        if self._version() < VERSION:
            _make(self.place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; closing twice does nothing."""
        with self._lock:
            self._line.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of it happens, or nothing.

        Raises:
            LedgerError: another process has been writing for too long, the disk is full, the server is away, …
        """
        with self._lock:
            try:
                connection = self._line.begin(writing=True)
                try:
                    yield connection
                    self._line.commit()
                except BaseException:
                    self._line.rollback()
                    raise
            except self._line.trouble as error:
                why = f"cannot be written: {self._line.said(error)}; nothing was changed"
                raise self._told(error, why) from error

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the store throughout.

        Raises:
            LedgerError: it cannot be read.
        """
        with self._lock:
            try:
                connection = self._line.begin(writing=False)
                try:
                    yield connection
                finally:
                    self._line.rollback()
            except self._line.trouble as error:
                raise self._told(error, f"cannot be read: {self._line.said(error)}") from error

    def generation(self) -> int:
        """Return the number of changes of people so far, as ``Store.generation``."""
        with self.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(row[0]) if row else 0

    def scrub(self) -> None:
        """Leave nothing of what was deleted in the write-ahead log."""
        with self._lock:
            try:
                self._line.scrub()
            except self._line.trouble as error:
                why = self._line.said(error)
                raise LedgerError(f"the store {self.place} cannot be written: {why}") from error

    # --- inside ---

    def _told(self, error: Exception, why: str) -> LedgerError:
        kind = LedgerUnavailable if isinstance(error, self._line.passing) else LedgerError
        if isinstance(error, self._line.away):
            kind = LedgerAway
        return kind(f"the store {self.place} {why}")

    def _version(self) -> int:
        with self.read() as connection:
            if connection.execute("SELECT to_regclass('meta')").fetchone()[0] is None:
                return 0
            row = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        return int(row[0]) if row else 0


class _File:
    """SQLite's line."""

    trouble: tuple[type[Exception], ...] = (sqlite3.Error,)
    passing: tuple[type[Exception], ...] = (sqlite3.OperationalError,)
    away: tuple[type[Exception], ...] = ()

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def begin(self, *, writing: bool) -> Connection:
        self._connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        return self._connection

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def scrub(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def close(self) -> None:
        self._connection.close()

    def said(self, error: Exception, /) -> str:
        return str(error)


def _opened(place: Place, busy_ms: int) -> _File:
    try:
        if _file_version(place.file) < VERSION:
            _make(place)
        connection = sqlite3.connect(place.file, timeout=busy_ms / 1e3, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        pragmas = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON")
        for pragma in (f"busy_timeout = {busy_ms}", *pragmas):
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error as error:
        kind = LedgerUnavailable if isinstance(error, sqlite3.OperationalError) else LedgerError
        raise kind(f"the store {place} cannot be opened: {error}") from error
    return _File(connection)


def _file_version(file: Path) -> int:
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(file, timeout=BUSY_MS / 1e3)) as connection:
        version: Any = connection.execute("PRAGMA user_version").fetchone()[0]
    return int(version)


def _make(place: Place) -> None:
    """Have the store made or brought up to date, by a process of its own: that takes what the ledger does without."""
    command = [sys.executable, "-m", "common.store", str(place.data_dir)]
    root = Path(__file__).resolve().parents[1]
    given = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if place.url is not None:
        given[VARIABLE] = place.url
    try:
        done = subprocess.run(
            command, cwd=root, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:  # no process, no memory, no descriptor left
        raise LedgerUnavailable(f"the store {place} cannot be made: {error}") from error
    if done.returncode != 0:
        kind = LedgerUnavailable if done.returncode == UNAVAILABLE else LedgerError
        raise kind(done.stderr.strip() or f"the store {place} could not be made")
