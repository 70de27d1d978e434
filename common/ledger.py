"""The ledger: the part of the store that is written every second (history, episodes, notifications, notes).

The same database file as ``common/store.py``, through Python's own ``sqlite3``: a stage that uses nothing else of the
store stays 23 MB smaller, and a day of seconds is read in a fraction of the time. Tables: ``common/schema.py``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "mien.db"
BUSY_MS = 5000
UNAVAILABLE = 75  # exit code of ``python -m common.store``: it may be possible later
VERSION = 5  # of the oldest store that has all of these tables


class LedgerError(RuntimeError):
    """The store cannot be read or written at the moment, or at all; the text says why. Nothing was changed."""


class LedgerUnavailable(LedgerError):
    """It cannot be opened, read or written at the moment; it may be, later."""


class Ledger:
    """A connection to the store in a data directory, made there when there is none. Threads take turns.

    Close it, or use it as a context.

    Args:
        busy_ms: how long to wait for another writer.

    Raises:
        LedgerUnavailable: it cannot be opened or made at the moment.
        LedgerError: it cannot be opened or made.
    """

    def __init__(self, data_dir: Path, *, busy_ms: int = BUSY_MS) -> None:
        self.path = data_dir / FILE
        self._lock = threading.RLock()
        if self._version(busy_ms) < VERSION:
            _make(data_dir)
        self._connection = self._connect(busy_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; closing twice does nothing."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it happens, or nothing.

        Raises:
            LedgerError: another process has been writing for too long, the disk is full, …
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                kind = LedgerUnavailable if isinstance(error, sqlite3.OperationalError) else LedgerError
                raise kind(f"the store {self.path} cannot be written: {error}; nothing was changed") from error

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the store throughout.

        Raises:
            LedgerError: it cannot be read.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN")
                try:
                    yield self._connection
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                kind = LedgerUnavailable if isinstance(error, sqlite3.OperationalError) else LedgerError
                raise kind(f"the store {self.path} cannot be read: {error}") from error

    def generation(self) -> int:
        """Return the number of changes of people so far, as ``Store.generation``."""
        with self.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(row[0]) if row else 0

    def scrub(self) -> None:
        """Leave nothing of what was deleted in the write-ahead log."""
        with self._lock:
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            except sqlite3.Error as error:
                raise LedgerError(f"the store {self.path} cannot be written: {error}") from error

    # --- inside ---

    def _connect(self, busy_ms: int) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=busy_ms / 1e3, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            pragmas = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON")
            for pragma in (f"busy_timeout = {busy_ms}", *pragmas):
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error as error:
            raise _unopened(self.path, error) from error
        return connection

    def _version(self, busy_ms: int) -> int:
        if not self.path.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=busy_ms / 1e3)) as connection:
                version: Any = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise _unopened(self.path, error) from error
        return int(version)


def _unopened(path: Path, error: sqlite3.Error) -> LedgerError:
    kind = LedgerUnavailable if isinstance(error, sqlite3.OperationalError) else LedgerError
    return kind(f"the store {path} cannot be opened: {error}")


def _make(data_dir: Path) -> None:
    """Have the store made or brought up to date, by a process of its own: that takes what the ledger does without."""
    command = [sys.executable, "-m", "common.store", str(data_dir)]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:  # no process, no memory, no descriptor left
        raise LedgerUnavailable(f"the store in {data_dir} cannot be made: {error}") from error
    if done.returncode != 0:
        kind = LedgerUnavailable if done.returncode == UNAVAILABLE else LedgerError
        raise kind(done.stderr.strip() or f"the store in {data_dir} could not be made")
