"""The store: one database of everything that lasts about people, with its key, versions and audit log.

A SQLite file in the data directory, or a PostgreSQL database that several machines share (``common/backend.py``).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DatabaseError

from common import encryption, schema
from common.backend import Busy, backend_of
from common.backend import insert_or_update as insert_or_update
from common.encryption import Cipher, KeyProblem
from common.place import VARIABLE, Place, checked, place_of
from common.schema import META
from common.sql import Connection as Plain

UNAVAILABLE = 75  # exit code of ``python -m common.store``: it may be possible later
_KEY_CHECK = b"this store belongs to this key"


class StoreError(RuntimeError):
    """The store cannot be used as asked; the text says why and what to do. Nothing was lost."""


class StoreUnavailable(StoreError):
    """The store cannot be used at the moment: locked, no room, only to be read. It may be, later."""


class Store:
    """A connection to the store, which is made when there is none (but see ``make``).

    Any number of processes may have it open; a write is one transaction, so that whoever is killed in the middle of it
    leaves the state before. A server that goes away and comes back is found again by the next call. Close it, or use it
    as a context. One thread at a time.

    Args:
        where: its place; a path is a data directory with ``mien.db`` and ``mien.key``.
        who: the process or command, as the audit log names it.
        only_read: what is there is read where nothing can be written, not even SQLite's own files. Only for a data
            directory in which nobody writes: what others add is not seen.
        make: False: a data directory without a store stays as it is, for its name may be mistyped.

    Raises:
        StoreUnavailable: it cannot be opened at the moment.
        StoreError: it cannot be opened, is not there, is of a newer version, or the key is another one.
    """

    def __init__(
        self, where: Place | Path, *, who: str = "command", only_read: bool = False, make: bool = True
    ) -> None:
        self.place = place_of(where)
        self.who = f"{who} ({_user()})"[:128]
        data_dir = self.place.data_dir
        if not make and self.place.url is None and not self.place.file.exists():
            raise StoreError(
                f"there is no store in {data_dir}: write --data-dir as where Mien runs, or enrol somebody first "
                "(python launch.py people add --from FOLDER)"
            )
        try:
            if not only_read:
                data_dir.mkdir(parents=True, exist_ok=True)
            self._backend = backend_of(self.place, only_read=only_read)
            self._engine = self._backend.engine()
        except OSError as error:
            raise StoreUnavailable(
                f"the store {self.place} cannot be made: {error}; choose another --data-dir"
            ) from error
        except ImportError as error:
            raise StoreError(str(error)) from error
        passing: tuple[type[Exception], ...] = (*self._backend.trouble, OSError)
        try:
            self._migrate()
            self.cipher = self._cipher(data_dir)
        except (StoreError, KeyProblem) as error:
            self.close()
            raise error if isinstance(error, StoreError) else StoreError(str(error)) from error
        except passing as error:
            self.close()
            raise StoreUnavailable(f"the store {self.place} cannot be opened: {self._backend.said(error)}") from error
        except DatabaseError as error:
            self.close()
            raise StoreError(f"the store {self.place} cannot be opened: {self._backend.said(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    # --- reading and writing ---

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of it happens, or nothing.

        Raises:
            StoreUnavailable: another process has been writing for too long, the disk is full, the server is away.
        """
        try:
            with self._engine.connect().execution_options(writing=True) as connection, connection.begin():
                yield connection
        except self._backend.trouble as error:
            why = self._backend.said(error)
            raise StoreUnavailable(f"the store {self.place} cannot be written: {why}; nothing was changed") from error

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the store throughout.

        Raises:
            StoreUnavailable: it cannot be read now.
            StoreError: it is damaged.
        """
        try:
            with self._engine.connect() as connection:
                yield connection
        except self._backend.trouble as error:
            raise StoreUnavailable(f"the store {self.place} cannot be read: {self._backend.said(error)}") from error
        except DatabaseError as error:
            if self.place.url is not None or type(error) is not DatabaseError:
                raise  # it is what was asked that is wrong
            raise StoreError(
                f"the store {self.place} cannot be opened as it is: {self._backend.said(error)}; put back your copy "
                "(docs/deployment.md, Backups). Nothing was changed."
            ) from error

    def plain(self, connection: Connection) -> Plain:
        """Return a connection's transaction for whoever speaks plain SQL (``common/sql.py``)."""
        return self._backend.plain(connection)

    def audit(self, connection: Connection, did: str, about: str, *, at: float | None = None) -> None:
        """Add a line to the audit log; ``about`` never holds anything biometric."""
        line = {"at": time.time() if at is None else at, "who": self.who, "did": did, "about": about[:2000]}
        connection.execute(insert(schema.AUDIT).values(**line))

    def redact(self, connection: Connection, person: int, names: Collection[str]) -> None:
        """Take all names of a forgotten person out of the audit log; their number stays."""
        lines = connection.execute(select(schema.AUDIT).where(schema.AUDIT.c.about.contains(f"#{person} ")))
        for line in lines.all():
            about = line.about
            for name in sorted(names, key=len, reverse=True):  # one may begin with another
                about = about.replace(f"#{person} {name}", f"#{person}")
                if about.startswith(f"#{person}"):
                    about = about.replace(f"name {name}", "name")
            connection.execute(update(schema.AUDIT).where(schema.AUDIT.c.id == line.id).values(about=about))

    # --- the generation: whoever keeps people in memory sees by it that they have changed ---

    def generation(self) -> int:
        """Return the number of changes of people and references so far."""
        with self.read() as connection:
            return self.generation_in(connection)

    def generation_in(self, connection: Connection) -> int:
        """Return the generation that a connection sees."""
        return int(_meta(connection, "generation") or b"0")

    def changed(self, connection: Connection) -> None:
        """Say that people or references change in this transaction."""
        set_meta(connection, "generation", str(self.generation_in(connection) + 1).encode())

    def setting(self, key: str) -> bytes | None:
        """Return what was kept under a key by ``set_setting``."""
        with self.read() as connection:
            return self.setting_in(connection, key)

    def setting_in(self, connection: Connection, key: str) -> bytes | None:
        """The same, as a connection sees it."""
        return _meta(connection, key)

    def set_setting(self, connection: Connection, key: str, value: bytes) -> None:
        """Keep a small value under a key."""
        set_meta(connection, key, value)

    def drop_setting(self, connection: Connection, key: str) -> None:
        """Keep nothing under a key any more."""
        connection.execute(delete(META).where(META.c.key == key))

    # --- sealed values ---

    def seal_embedding(self, embedding: NDArray[np.float32]) -> bytes:
        """Return an embedding (128,) float32 as it is kept."""
        return self.cipher.seal(np.asarray(embedding, "<f4").tobytes(), "embedding")

    def open_embedding(self, sealed: bytes) -> NDArray[np.float32]:
        """Return an embedding (128,) float32. Raises KeyProblem when it is damaged."""
        return np.frombuffer(self.cipher.open(sealed, "embedding"), "<f4").astype(np.float32)

    def seal_crop(self, jpeg: bytes) -> bytes:
        """Return a crop's JPEG as it is kept."""
        return self.cipher.seal(jpeg, "crop")

    def open_crop(self, sealed: bytes) -> bytes:
        """Return a crop's JPEG. Raises KeyProblem when it is damaged."""
        return self.cipher.open(sealed, "crop")

    def scrub(self) -> None:
        """Leave nothing of what was deleted in the files (on a server: as little as an ordinary user can see to)."""
        try:
            self._backend.scrub(self._engine)
        except self._backend.trouble as error:
            raise StoreError(f"the store {self.place} cannot be written: {self._backend.said(error)}") from error

    # --- inside ---

    def _migrate(self) -> None:
        version = self._version()
        if version == schema.VERSION:
            return
        try:
            with self._backend.migrating(self._engine):
                version = self._version()  # another process may have been quicker
                if version > schema.VERSION:
                    raise StoreError(
                        f"the store {self.place} is of version {version}, this Mien knows versions up to "
                        f"{schema.VERSION}: use the newer Mien that wrote it. Nothing was changed."
                    )
                for step in range(version, schema.VERSION):
                    with self.write() as connection:
                        schema.advance(connection, step)
                        self._backend.set_version(connection, step + 1)
        except Busy as error:
            raise StoreUnavailable(f"another process has been changing {self.place} for a minute: try again") from error

    def _version(self) -> int:
        with self.read() as connection:
            return self._backend.version(connection)

    def _cipher(self, data_dir: Path) -> Cipher:
        with self.read() as connection:
            check = _meta(connection, "key_check")
        cipher = Cipher(encryption.key_of(data_dir, make=check is None))
        if check is None:
            with self.write() as connection:
                if _meta(connection, "key_check") is None:
                    set_meta(connection, "key_check", cipher.seal(_KEY_CHECK, "key_check"))
            with self.read() as connection:
                check = _meta(connection, "key_check") or b""
        try:
            cipher.open(check, "key_check")
        except KeyProblem as error:
            raise StoreError(
                f"the key does not fit the store {self.place}: it was made with another one. Put the right key back "
                f"into {data_dir / encryption.KEY_FILE} or {encryption.KEY_VARIABLE}. Nothing was changed."
            ) from error
        return cipher


def set_meta(connection: Connection, key: str, value: bytes) -> None:
    """Write a row of ``meta``."""
    done = connection.execute(update(META).where(META.c.key == key).values(value=value))
    if done.rowcount == 0:
        connection.execute(insert(META).values(key=key, value=value))


def _meta(connection: Connection, key: str) -> bytes | None:
    return connection.execute(select(META.c.value).where(META.c.key == key)).scalar()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown user"


def main(argv: list[str]) -> int:
    """Make the store, or bring it up to date: ``python -m common.store DIR``, a server's address in the environment."""
    url = os.environ.get(VARIABLE)
    try:
        Store(Place(Path(argv[0]), checked(url) if url else None), who="store").close()
    except (StoreError, ValueError) as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE if isinstance(error, StoreUnavailable) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
