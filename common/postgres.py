"""PostgreSQL as the store's server: connections that do not wait for ever, and plain SQL as ``sqlite3`` would have it.

Needs the extra ``mien[postgres]``. One process writes at a time, as with SQLite: a writer holds a lock of the database
for its transaction, so that numbers follow each other and nobody changes what somebody else has just read.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

try:
    import psycopg
except ImportError as missing:  # said by whoever opens the store
    raise ImportError("a store on PostgreSQL needs psycopg: pip install 'mien[postgres]'") from missing

WRITING = 0x4D69656E  # the lock of whoever writes: "Mien"
CONNECT_S = 2  # for each address of the server's name
PATIENCE_S = 30.0  # a server silent this long in the middle of something is given up
STAGE_PATIENCE_S = 2.5  # … by a stage whose loop waits for it; to be reached, the server has hardly longer
NEXT_ADDRESS_S = 0.5  # such a stage begins with no further address of the server's name after this
AGAIN_S = 1.0  # between two attempts to reach a server that is away, or has been silent

Error = psycopg.Error

# A connection whose other end has gone is noticed by both within half a minute, and its lock given back.
_OPTIONS = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "idle_in_transaction_session_timeout": 30_000,
}


class Away(psycopg.OperationalError):
    """The server was away or silent a moment ago, and has not been asked again."""


class Row(tuple[Any, ...]):
    """A row; its columns by place or by name."""

    places: dict[str, int]

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self.places[key] if isinstance(key, str) else key)


class Answer:
    """What a statement gave."""

    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The number of the row that was just inserted."""
        row = self._cursor.connection.execute("SELECT lastval()").fetchone()
        return None if row is None else int(row[0])

    def fetchone(self) -> Row | None:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Row]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Row]:
        return iter(self._cursor)


class Session:
    """A psycopg connection that is spoken to as ``common/sql.py`` says."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Answer:
        cursor = self.connection.cursor(row_factory=_rows)
        cursor.execute(_translated(sql), tuple(parameters))
        return Answer(cursor)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Answer:
        cursor = self.connection.cursor(row_factory=_rows)
        cursor.executemany(_translated(sql), [tuple(row) for row in parameters])
        return Answer(cursor)


class Connection(psycopg.Connection[Any]):
    """A connection whose server has to answer in time, also one that is frozen or cut off.

    Attributes:
        silent: what was said when it did not; empty before.
    """

    patience_s = PATIENCE_S
    silent = ""

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        def bounded() -> Any:
            deadline = time.monotonic() + self.patience_s
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if not ready and time.monotonic() > deadline:
                        self.close()
                        self.silent = f"the server has not answered for {self.patience_s:g} s"
                        raise psycopg.OperationalError(self.silent)
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

        return super().wait(bounded(), *arguments, **named)


class Line:
    """A ledger's connection, made when it is needed and again after it was lost.

    Args:
        busy_ms: how long to wait for another writer.
        patience_s: how long to wait for the server to say anything. A server that has said nothing for so long is not
            asked again at once: whoever waits has waited long enough.
    """

    trouble: tuple[type[Exception], ...] = (psycopg.Error,)
    passing: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.InternalError)
    away: tuple[type[Exception], ...] = (Away,)

    def __init__(self, url: str, busy_ms: int, patience_s: float = PATIENCE_S) -> None:
        self._url = url
        self._busy_ms = busy_ms
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._away_until = 0.0
        self._away = ""
        self._address = 0  # the one to begin with

    def begin(self, *, writing: bool) -> Session:
        """Begin a transaction. Raises psycopg.Error: the server is away, or another writer takes too long."""
        had_one = self._connection is not None
        try:
            return self._begun(writing)
        except psycopg.OperationalError:
            # It may have been away since the last time: nothing was begun, so that it can be tried once more.
            if not had_one or self._connection is not None or time.monotonic() < self._away_until:
                raise
        return self._begun(writing)

    def _begun(self, writing: bool) -> Session:
        if self._connection is None:
            if time.monotonic() < self._away_until:
                raise Away(self._away)
            try:
                self._connection = self._connected()
            except psycopg.Error as error:
                self._gone(said(error))
                raise
        try:
            for statement in beginning(writing=writing, busy_ms=self._busy_ms):
                self._connection.execute(statement.encode())
        except BaseException:
            self.rollback()
            raise
        return Session(self._connection)

    def _connected(self) -> Connection:
        if self._patience_s > STAGE_PATIENCE_S:
            return connect(self._url, patience_s=self._patience_s)
        addresses, began = _addresses(self._url), time.monotonic()
        for left in reversed(range(len(addresses))):
            try:
                return connect(self._url, patience_s=self._patience_s, **addresses[self._address % len(addresses)])
            except psycopg.OperationalError:
                self._address += 1  # also next time: each has its turn
                if not left or time.monotonic() - began > NEXT_ADDRESS_S:
                    raise
        raise AssertionError("a server has at least one address")

    def _gone(self, why: str) -> None:
        self._away, self._away_until = why, time.monotonic() + AGAIN_S

    def commit(self) -> None:
        """End the transaction: all of it has happened."""
        if self._connection is not None:
            self._connection.commit()

    def rollback(self) -> None:
        """End the transaction: nothing of it has happened. A connection that is lost is forgotten."""
        if self._connection is None:
            return
        if self._connection.silent:
            self._gone(self._connection.silent)
        try:
            self._connection.rollback()
        except psycopg.Error:  # lost: whoever asked hears that from what failed before
            self.close()
        if self._connection is not None and (self._connection.closed or self._connection.broken):
            self.close()

    def scrub(self) -> None:
        """Give back the room of what was deleted."""
        scrub(self._url)

    def close(self) -> None:
        """Close the connection; closing twice does nothing."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    said = staticmethod(lambda error: said(error))


def connect(url: str, *, autocommit: bool = False, patience_s: float = PATIENCE_S, **address: Any) -> Connection:
    """Return a connection. Raises psycopg.Error: there is none to be had within a few seconds.

    Args:
        address: one of the server's, in place of those that the URL leads to.
    """
    options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
    made = Connection.connect(
        url,
        autocommit=autocommit,
        connect_timeout=CONNECT_S,
        application_name="mien",
        options=options,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
        # A server-side prepared statement would be one of another connection behind a pooler.
        prepare_threshold=None,
        **address,
    )
    made.patience_s = patience_s
    return made


def _addresses(url: str) -> list[dict[str, Any]]:
    """Return the addresses that a URL leads to; an empty one where there is no name to look up."""
    given = psycopg.conninfo.conninfo_to_dict(url)
    hosts, ports = (str(given.get(name) or "").split(",") for name in ("host", "port"))
    if given.get("hostaddr") or not all(hosts) or any(host.startswith(("/", "@")) for host in hosts):
        return [{}]
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    found: list[dict[str, Any]] = []
    for host, port in zip(hosts, ports, strict=True):
        try:
            known = socket.getaddrinfo(host, port or "5432", type=socket.SOCK_STREAM)
        except OSError:  # said by whoever connects
            continue
        found += [{"host": host, "port": port or "5432", "hostaddr": str(one[4][0])} for one in known]
    return found or [{}]


def scrub(url: str) -> None:
    """Give back the room of what was deleted, so that it is written over. Raises psycopg.Error."""
    with connect(url, autocommit=True, patience_s=600) as connection:
        connection.execute("VACUUM")


def beginning(*, writing: bool, busy_ms: int) -> list[str]:
    """Return the statements that a transaction begins with, after ``BEGIN``."""
    if not writing:
        return ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"]
    return [
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        f"SET LOCAL lock_timeout = {busy_ms}",
        f"SELECT pg_advisory_xact_lock({WRITING})",
    ]


def said(error: BaseException) -> str:
    """Return in one line what is wrong; being locked as SQLite says it."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return "the database is locked: another process has been writing for too long"
    return " ".join(str(error).split()) or type(error).__name__


@functools.lru_cache(512)
def _translated(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()


def _rows(cursor: psycopg.Cursor[Any]) -> Any:
    names = [column.name for column in cursor.description or ()]
    # A class for each answer: rows of a day are many, and each would carry the names.
    kind = type("Row", (Row,), {"__slots__": (), "places": {name: place for place, name in enumerate(names)}})
    return cast(Any, kind)
