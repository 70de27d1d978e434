"""Keys: who may open which channel. Files in one directory that only its user can read.

The machine that listens has ``server.key`` and the list of the keys that it lets in, ``allowed.json``. Every other
machine has ``own.key``: one file, made by ``python launch.py keys make`` on the listening machine and copied over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock

SERVER = "server"  # the name of the listening machine's own key, and its role: it may do everything
SERVER_FILE, OWN_FILE, ALLOWED_FILE = "server.key", "own.key", "allowed.json"
_FORMAT = "mien-key-1"
_NAME = re.compile(r"(?!own$)[A-Za-z0-9_-]{1,64}")

ROLES: dict[str, tuple[str, ...]] = {
    # role: the channels that it opens. A key opens connections, not topics: so each right has a channel of its own.
    "camera": ("frames", "news_in", "news_out"),
    "worker": ("jobs", "findings", "news_in", "news_out"),
    "publisher": ("news_in",),
    "subscriber": ("news_out", "news_public"),
    "controller": ("control", "news_out"),
    "viewer": ("previews",),
    "public": ("news_public",),
}


class KeysError(ValueError):
    """A key that cannot be made, read or used; the text says why and what to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key with its secret half, as its file holds it.

    Attributes:
        roles: what it is for, of ``ROLES``; ``server`` alone for the listening machine's.
        public, secret: 40 characters each (Z85).
        server: the public half of the listening machine's key: what makes sure that it is that machine.
    """

    name: str
    roles: tuple[str, ...]
    public: str
    secret: str = field(repr=False)
    server: str

    def opens(self, channel: str) -> bool:
        """Whether this key is good for a channel."""
        return SERVER in self.roles or any(channel in ROLES.get(role, ()) for role in self.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the list of keys; one that was revoked lets nobody in."""

    name: str
    public: str
    roles: tuple[str, ...]
    made_at: float
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The list of keys, at one moment.

    Attributes:
        generation: one more with every change.
    """

    generation: int = 0
    entries: tuple[Entry, ...] = ()

    def rights(self, channel: str) -> frozenset[str]:
        """Return the public halves of the keys that open a channel."""
        return frozenset(
            entry.public
            for entry in self.entries
            if entry.revoked_at is None and any(channel in ROLES.get(role, ()) for role in entry.roles)
        )

    def name_of(self, public: str) -> str:
        """Return whose key it is, as the list knows it, also when it was revoked."""
        return next((entry.name for entry in self.entries if entry.public == public), "nobody we know")


class KeyRing:
    """The keys in one directory.

    Args:
        folder: need not exist until a key is made.
        pair: makes a key: its public and its secret half.
    """

    def __init__(self, folder: Path, pair: Callable[[], tuple[str, str]] | None = None) -> None:
        self.folder = folder
        self._pair = pair

    # --- looking ---

    def own(self) -> Key | None:
        """Return this machine's key: the server's where there is one. Raises KeysError: it cannot be used."""
        for name in (SERVER_FILE, OWN_FILE):
            if (self.folder / name).exists():
                return read_key(self.folder / name)
        return None

    def listens(self) -> bool:
        """Whether this machine has the key to listen with."""
        return (self.folder / SERVER_FILE).exists()

    def allowed(self) -> Allowed:
        """Return the list of keys; an empty one where none was made. Raises KeysError: it cannot be read."""
        path = self.folder / ALLOWED_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            entries = tuple(
                Entry(**{**line, "roles": tuple(line["roles"])}) for line in fields["keys"] if isinstance(line, dict)
            )
            return Allowed(generation=int(fields["generation"]), entries=entries)
        except FileNotFoundError:
            return Allowed()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KeysError(f"the list of keys {path} cannot be read ({error}): nobody is let in") from error

    def stamp(self, *names: str) -> tuple[object, ...]:
        """Return something that is another one when one of these files has changed."""
        found: list[object] = []
        for name in names:
            try:
                status = (self.folder / name).stat()
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    # --- changing ---

    def make(self, name: str, roles: tuple[str, ...]) -> tuple[Key, Path]:
        """Make a key and let it in; return it and its file, which is to be copied to its machine.

        Raises:
            KeysError: the name is taken or malformed, a role is unknown, or this machine is not the one that listens.
        """
        if not _NAME.fullmatch(name):
            raise KeysError(f"{name!r} is no name for a key: letters, digits, - and _, at most 64 (and not 'own')")
        with self._changing():
            return self._make(name, roles)

    def _make(self, name: str, roles: tuple[str, ...]) -> tuple[Key, Path]:
        if name == SERVER:
            if self.listens():
                raise KeysError("there is a server key already; 'keys rotate server' makes another")
            return self._make_server(), self.folder / SERVER_FILE
        unknown = [role for role in roles if role not in ROLES]
        if unknown or not roles:
            raise KeysError(f"{unknown[0] if unknown else 'no role'}: a key's roles are of {', '.join(ROLES)}")
        if not self.listens():
            self._make_server()
        listed = self.allowed()
        if any(entry.name == name and entry.revoked_at is None for entry in listed.entries):
            raise KeysError(f"there is a key {name!r} already: 'keys rotate {name}' replaces it, 'keys list' shows all")
        return self._issue(name, roles, listed)

    def rotate(self, name: str) -> tuple[Key, Path]:
        """Replace a key by a new one of the same roles; the old one opens nothing any more. Errors as ``make``."""
        with self._changing():
            return self._rotate(name)

    def _rotate(self, name: str) -> tuple[Key, Path]:
        if name == SERVER:
            key = self._make_server()
            # Whoever has a key must learn the new server's: the files that are still here are written again.
            for entry in self.allowed().entries:
                path = self.folder / f"{entry.name}.key"
                if entry.revoked_at is None and path.exists():
                    write_private(path, _text(replace(read_key(path), server=key.public)))
            return key, self.folder / SERVER_FILE
        entry = self._entry(name)
        return self._issue(name, entry.roles, self._without(name))

    def revoke(self, name: str) -> None:
        """Let a key in no more, and end what it has open. Raises KeysError: there is no such key."""
        with self._changing():
            self._entry(name)
            self._write(self._without(name))
            (self.folder / f"{name}.key").unlink(missing_ok=True)

    def install(self, path: Path) -> Key:
        """Make a key from another machine this machine's own. Raises KeysError: it is none, or this one listens."""
        key = read_key(path, private=False)
        if SERVER in key.roles:
            target = SERVER_FILE
        elif self.listens():
            raise KeysError("this machine has the server's key, which opens everything already: nothing to import here")
        else:
            target = OWN_FILE
        write_private(self.folder / target, _text(key))
        return key

    # --- inside ---

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, and only where keys are made."""
        if not self.listens() and (self.folder / OWN_FILE).exists():
            raise KeysError(
                f"this machine has a key of another ({self.folder / OWN_FILE}): keys are made, rotated and revoked on "
                "the machine that runs bus and conductor"
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / "lock", timeout=10, mode=0o600):
            yield

    def _entry(self, name: str) -> Entry:
        for entry in self.allowed().entries:
            if entry.name == name and entry.revoked_at is None:
                return entry
        known = ", ".join(entry.name for entry in self.allowed().entries if entry.revoked_at is None) or "none"
        raise KeysError(f"there is no key {name!r}; there are: {known}")

    def _without(self, name: str) -> Allowed:
        now = time.time()
        return replace(
            (listed := self.allowed()),
            entries=tuple(
                replace(entry, revoked_at=now) if entry.name == name and entry.revoked_at is None else entry
                for entry in listed.entries
            ),
        )

    def _make_server(self) -> Key:
        public, secret = self._new_pair()
        key = Key(name=SERVER, roles=(SERVER,), public=public, secret=secret, server=public)
        write_private(self.folder / SERVER_FILE, _text(key))
        return key

    def _issue(self, name: str, roles: tuple[str, ...], listed: Allowed) -> tuple[Key, Path]:
        server = read_key(self.folder / SERVER_FILE).public
        public, secret = self._new_pair()
        key = Key(name=name, roles=roles, public=public, secret=secret, server=server)
        path = self.folder / f"{name}.key"
        write_private(path, _text(key))
        entry = Entry(name=name, public=public, roles=roles, made_at=time.time())
        self._write(replace(listed, entries=(*listed.entries, entry)))
        return key, path

    def _write(self, listed: Allowed) -> None:
        lines = [asdict(entry) for entry in listed.entries]
        text = json.dumps({"generation": listed.generation + 1, "keys": lines}, indent=1)
        write_private(self.folder / ALLOWED_FILE, text)

    def _new_pair(self) -> tuple[str, str]:
        assert self._pair is not None, "a ring that makes keys is given how"
        return self._pair()


def read_key(path: Path, *, private: bool = True) -> Key:
    """Return the key in a file.

    Args:
        private: refuse a file that other users can read.

    Raises:
        KeysError: it cannot be read, is no key, or others can read it.
    """
    try:
        if private and os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeysError(f"other users can read the key {path}: chmod 600 {path}, and better make a new one")
        fields = json.loads(path.read_text(encoding="ascii"))
        if fields.pop("format") != _FORMAT:
            raise ValueError("another format")
        key = Key(**{**fields, "roles": tuple(fields["roles"])})
        if not all(len(part) == 40 for part in (key.public, key.secret, key.server)):
            raise ValueError("a part of it is missing")
    except KeysError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KeysError(f"{path} is not a key that can be used ({error}): copy it again, or make another") from error
    return key


def write_private(path: Path, text: str) -> None:
    """Write a file that its user alone can read, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _text(key: Key) -> str:
    return json.dumps({"format": _FORMAT, **asdict(key)}, indent=1)
