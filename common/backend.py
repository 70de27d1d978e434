"""What the store needs of its database, for each kind: SQLite in a file, PostgreSQL on a server."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, select, text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from common.place import Place
from common.schema import META
from common.sql import Connection as Plain

BUSY_MS = 5000  # how long a writer waits for another one
_MIGRATION_S = 60
_VERSION_KEY = "version"  # where a database has no place of its own for it


class Busy(RuntimeError):
    """Another process has been changing the store for too long."""


class Backend(Protocol):
    """One kind of database.

    Attributes:
        trouble: what is raised when the database cannot do what it was asked at the moment.
    """

    trouble: tuple[type[Exception], ...]

    def engine(self) -> Engine:
        """Make what connects; a writer's transaction (option ``writing``) waits for other writers."""
        ...

    def migrating(self, engine: Engine) -> contextlib.AbstractContextManager[None]:
        """Be the only process that changes tables. Raises Busy."""
        ...

    def version(self, connection: Connection) -> int:
        """Return how many steps of the schema the database has."""
        ...

    def set_version(self, connection: Connection, version: int) -> None:
        """Write that down."""
        ...

    def scrub(self, engine: Engine) -> None:
        """Leave as little as can be of what was deleted."""
        ...

    def plain(self, connection: Connection) -> Plain:
        """Return the transaction of a connection as plain SQL is spoken to."""
        ...

    def said(self, error: Exception) -> str:
        """Return in one line what is wrong."""
        ...


class Sqlite:
    """A file ``mien.db`` in the data directory."""

    trouble: tuple[type[Exception], ...] = (OperationalError, sqlite3.OperationalError)

    def __init__(self, place: Place, *, only_read: bool = False) -> None:
        self._place = place
        self._only_read = only_read

    def engine(self) -> Engine:
        if self._only_read:
            address = f"sqlite:///file:{quote(str(self._place.file))}?mode=ro&immutable=1&uri=true"
            engine = create_engine(address, connect_args={"check_same_thread": False})
            event.listen(engine, "connect", _prepare_reading)
            event.listen(engine, "begin", _begin)
            return engine
        if os.name == "posix" and not self._place.file.exists():
            # Made before SQLite makes it: names and notes are nobody else's to read.
            os.close(os.open(self._place.file, os.O_WRONLY | os.O_CREAT, 0o600))
        engine = create_engine(
            URL.create("sqlite", database=str(self._place.file)),  # whatever characters are in it
            connect_args={"timeout": BUSY_MS / 1e3, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine

    @contextlib.contextmanager
    def migrating(self, engine: Engine) -> Iterator[None]:
        try:
            with FileLock(self._place.file.with_name(f"{self._place.file.name}.lock"), timeout=_MIGRATION_S):
                yield
        except Timeout as error:
            raise Busy from error

    def version(self, connection: Connection) -> int:
        return int(connection.execute(text("PRAGMA user_version")).scalar_one())

    def set_version(self, connection: Connection, version: int) -> None:
        connection.execute(text(f"PRAGMA user_version = {version}"))

    def scrub(self, engine: Engine) -> None:
        with engine.connect() as connection:
            # Deleted pages are overwritten (secure_delete); the log would keep the old ones until it is reused.
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def plain(self, connection: Connection) -> Plain:
        plain = connection.connection.driver_connection
        assert isinstance(plain, sqlite3.Connection)
        return plain

    def said(self, error: Exception) -> str:
        return str(getattr(error, "orig", None) or error)


class Postgres:
    """A database on a PostgreSQL server. Raises ImportError when its driver is not installed."""

    def __init__(self, place: Place) -> None:
        from common import postgres

        assert place.url is not None
        self._url, self._driver, self._busy_ms = place.url, postgres, BUSY_MS
        # InternalError: a database that can only be read for now.
        self.trouble: tuple[type[Exception], ...] = (OperationalError, InterfaceError, InternalError, postgres.Error)

    def engine(self) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self._driver.connect(self._url),
            pool_pre_ping=True,  # a server that was away is there again at the next look
            pool_size=1,
            max_overflow=3,
            pool_timeout=BUSY_MS / 1e3,
        )
        event.listen(engine, "begin", self._begin)
        return engine

    @contextlib.contextmanager
    def migrating(self, engine: Engine) -> Iterator[None]:
        # A lock of the session, not of a transaction: each step is a transaction of its own.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as holder:
            try:
                holder.exec_driver_sql(f"SET lock_timeout = '{_MIGRATION_S}s'")
                holder.exec_driver_sql(f"SELECT pg_advisory_lock({self._driver.WRITING + 1})")
            except OperationalError as error:
                raise Busy from error
            try:
                yield
            finally:
                holder.exec_driver_sql(f"SELECT pg_advisory_unlock({self._driver.WRITING + 1})")
                holder.exec_driver_sql("RESET lock_timeout")

    def version(self, connection: Connection) -> int:
        if connection.exec_driver_sql("SELECT to_regclass('meta')").scalar() is None:
            return 0
        return int(connection.execute(select(META.c.value).where(META.c.key == _VERSION_KEY)).scalar() or b"0")

    def set_version(self, connection: Connection, version: int) -> None:
        value = str(version).encode()
        connection.execute(
            insert_or_update(connection, META)
            .values(key=_VERSION_KEY, value=value)
            .on_conflict_do_update(index_elements=["key"], set_={"value": value})
        )

    def scrub(self, engine: Engine) -> None:
        self._driver.scrub(self._url)

    def plain(self, connection: Connection) -> Plain:
        driver: Any = connection.connection.driver_connection
        return self._driver.Session(driver)

    def said(self, error: Exception) -> str:
        return self._driver.said(getattr(error, "orig", None) or error)

    def _begin(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        for statement in self._driver.beginning(writing=options.get("writing", False), busy_ms=self._busy_ms):
            connection.exec_driver_sql(statement)


def backend_of(place: Place, *, only_read: bool = False) -> Backend:
    """Return the kind of database of a place; ``only_read``: not even SQLite's own files beside it are written.

    Raises:
        ImportError: its driver is not installed.
    """
    return Sqlite(place, only_read=only_read) if place.url is None else Postgres(place)


def insert_or_update(connection: Connection, table: Table) -> Any:
    """Return an ``INSERT`` that can be told what to do with rows that are there (``on_conflict_do_update``)."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _prepare(connection: Any, record: Any) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # Transactions are begun by _begin: the driver's own way would commit before statements that change tables.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _prepare_reading(connection: Any, record: Any) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    # A reader that turns writer half-way fails when somebody wrote meanwhile; asking for the lock at once waits.
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
