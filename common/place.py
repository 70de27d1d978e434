"""Where the store is: a file in the data directory, or a database server that several machines share."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

FILE = "mien.db"
VARIABLE = "MIEN_STORAGE__URL"
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is.

    Attributes:
        data_dir: has the key; without ``url`` the SQLite file ``mien.db``, too.
        url: of a PostgreSQL database; None: SQLite.
    """

    data_dir: Path
    url: str | None = None

    @property
    def file(self) -> Path:
        """The SQLite file; meaningless where there is a URL."""
        return self.data_dir / FILE

    def __str__(self) -> str:
        """What people are shown: no password."""
        return str(self.file) if self.url is None else shown(self.url)


def place_of(where: Place | Path) -> Place:
    """Return a place; a bare path is a data directory with SQLite."""
    return where if isinstance(where, Place) else Place(where)


def checked(url: str) -> str:
    """Return a database's URL.

    Raises:
        ValueError: it is not PostgreSQL's, or leads to another machine without encryption.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:  # its text may hold a piece of the password
        raise ValueError(f"this is no address of a database: {_EXAMPLE}") from None
    if parts.scheme not in ("postgresql", "postgres") or not 0 < port < 65536 or not parts.path.strip("/"):
        raise ValueError(f"a store on a server is PostgreSQL's: {_EXAMPLE}")
    query = parse_qs(parts.query)
    if named := {"service", "servicefile"} & set(query):
        raise ValueError(f"{named.pop()}=… says elsewhere which machine the store is on: {_EXAMPLE}")
    if not parts.hostname and not {"host", "hostaddr"} & set(query):
        # Without a host in the address, PostgreSQL's library takes these.
        query |= {name: [value] for name in ("host", "hostaddr") if (value := os.environ.get(f"PG{name.upper()}"))}
        if os.environ.get("PGSERVICE"):
            raise ValueError(f"PGSERVICE says elsewhere which machine the store is on: unset it, or {_EXAMPLE}")
    hosts = [host for text in (parts.hostname, *query.get("host", ()), *query.get("hostaddr", ())) if text
             for host in text.split(",")]  # fmt: skip
    away = [host for host in hosts if not _here(host)]
    if away and query.get("sslmode", [""])[-1] not in _ENCRYPTED:
        raise ValueError(
            f"{away[0]} is another machine, and what the store holds is not sent there in the clear: add "
            "?sslmode=verify-full&sslrootcert=FILE to the address (or sslmode=require)"
        )
    return url


def shown(url: str) -> str:
    """Return an address without its passwords; it leads to the same place."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    # As it was written: reading a parameter and writing it anew could change it.
    query = "&".join(one for one in parts.query.split("&") if unquote(one.partition("=")[0]) not in _SECRET)
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{host}{parts.path}{'?' if query else ''}{query}"


_EXAMPLE = "write postgresql://USER@HOST/DATABASE"


def _here(host: str) -> bool:
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    return loopback or host.startswith((os.sep, "/", "@", "%2F", "%2f"))  # a path: a socket of this machine
