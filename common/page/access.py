"""Who may use the page: users with roles, passwords as argon2 hashes, sessions that end, tokens for programs.

Each function is one transaction on the store. Of sessions and tokens only a SHA-256 is kept, so that nobody who reads
the store can use them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Row, Update, delete, func, insert, select, update

from common.people import PeopleError, checked_name, name_key
from common.schema import PAGE_SESSION, PAGE_TOKEN, PAGE_USER
from common.store import Store, StoreError

log = logging.getLogger("mien.dashboard")

NOTE_AGAIN_S = 60.0  # a store that cannot be written is not waited for at every request
_unwritable = {"until": 0.0}  # monotonic seconds

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
MIN_PASSWORD = 10
MAX_PASSWORD = 200
FIRST_USER = "admin"

# 19 MiB and two passes (OWASP's smaller choice): a log-in must not weigh more than the rest of the stage.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_NOBODY = _HASHER.hash("nobody has this password")


class AccessError(ValueError):
    """What was asked cannot be done; the text says why. Nothing was changed."""


class WrongPassword(AccessError):
    """The present password is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may log in; times are unix seconds. ``one_time``: the password has to be replaced first."""

    id: int
    name: str
    role: Role
    one_time: bool
    created_at: float
    seen_at: float | None

    def may(self, role: Role) -> bool:
        """Whether this user's role includes another one's rights."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A log-in. ``id`` is the SHA-256 of what the browser holds."""

    id: bytes
    user: User
    began_at: float
    seen_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A program's key to the read-only interface; its secret is not kept."""

    id: int
    name: str
    created_at: float
    expires_at: float | None
    seen_at: float | None


def first_password(store: Store) -> str | None:
    """Return the one-time password of the first user, as long as nobody has logged in; None once somebody has.

    It is a new one each time: what was printed before and never used does not work any more.
    """
    with store.read() as connection:  # nothing is to be written on most days, and the page comes up all the same
        if _is_used(connection):
            return None
    with store.write() as connection:
        if _is_used(connection):
            return None
        connection.execute(delete(PAGE_USER))
        password = secrets.token_urlsafe(12)
        _insert(connection, FIRST_USER, password, "admin", one_time=True)
        store.audit(connection, "page", f"one-time password made for {FIRST_USER!r}")
    return password


def check(store: Store, name: str, password: str) -> User | None:
    """Return the user with this name and password, None if it is wrong; takes as long for a name that nobody has."""
    with store.read() as connection:
        row = connection.execute(select(PAGE_USER).where(PAGE_USER.c.name_key == name_key(name[:200].strip()))).first()
    if not _matches(row.hash if row else _NOBODY, password) or row is None:
        return None
    return _user(row)


def begin(store: Store, user: User) -> str:
    """Begin a session; return the secret that the browser keeps."""
    secret = secrets.token_urlsafe(32)
    now = time.time()
    with store.write() as connection:
        connection.execute(insert(PAGE_SESSION).values(id=digest(secret), user_id=user.id, began_at=now, seen_at=now))
        connection.execute(update(PAGE_USER).where(PAGE_USER.c.id == user.id).values(seen_at=now))
        store.audit(connection, "log-in", user.name)
    return secret


def session(store: Store, session_id: bytes, *, longest_s: float, idle_s: float) -> Session | None:
    """Return a session that has not ended, noting that it is in use; None: there is none, or it has ended."""
    now = time.time()
    chosen = select(PAGE_USER, PAGE_SESSION.c.began_at, PAGE_SESSION.c.seen_at.label("used_at")).join_from(
        PAGE_SESSION, PAGE_USER
    )
    with store.read() as connection:
        row = connection.execute(chosen.where(PAGE_SESSION.c.id == session_id)).first()
    if row is None:
        return None
    if now > row.began_at + longest_s or now > row.used_at + idle_s:
        with contextlib.suppress(StoreError):  # it has ended whether or not that can be written down
            end(store, session_id)
        return None
    if now - row.used_at > min(30.0, idle_s / 4):
        _note_use(store, update(PAGE_SESSION).where(PAGE_SESSION.c.id == session_id).values(seen_at=now))
    return Session(id=session_id, user=_user(row), began_at=row.began_at, seen_at=now)


def end(store: Store, session_id: bytes) -> None:
    """End a session; one that has ended already is no error."""
    with store.write() as connection:
        connection.execute(delete(PAGE_SESSION).where(PAGE_SESSION.c.id == session_id))


def set_password(store: Store, user: User, old: str, new: str, *, keep: bytes | None = None) -> None:
    """Replace a user's own password and end their sessions, except the one to ``keep``.

    Raises:
        WrongPassword: the old one is wrong. AccessError: the new one will not do.
    """
    with store.read() as connection:
        row = connection.execute(select(PAGE_USER.c.hash).where(PAGE_USER.c.id == user.id)).first()
    if row is None or not _matches(row.hash, old):
        raise WrongPassword("the present password is wrong")
    if new == old:
        raise AccessError("the new password is the old one")
    _checked_password(new)
    with store.write() as connection:
        connection.execute(
            update(PAGE_USER).where(PAGE_USER.c.id == user.id).values(hash=_HASHER.hash(new), one_time=0)
        )
        others = delete(PAGE_SESSION).where(PAGE_SESSION.c.user_id == user.id)
        connection.execute(others if keep is None else others.where(PAGE_SESSION.c.id != keep))
        store.audit(connection, "page", f"{user.name} has a new password")


def users(store: Store) -> list[User]:
    """Return everybody who may log in, by name."""
    with store.read() as connection:
        rows = connection.execute(select(PAGE_USER).order_by(PAGE_USER.c.name_key)).all()
    return [_user(row) for row in rows]


def add_user(store: Store, name: str, role: Role) -> str:
    """Add a user; return the one-time password that they begin with. Raises AccessError."""
    try:
        name = checked_name(name)
    except PeopleError as error:
        raise AccessError(str(error)) from error
    if role not in ROLES:
        raise AccessError(f"a role is one of {', '.join(ROLES)}")
    password = secrets.token_urlsafe(12)
    with store.write() as connection:
        if connection.execute(select(PAGE_USER.c.id).where(PAGE_USER.c.name_key == name_key(name))).first():
            raise AccessError(f"there is a user {name!r} already")
        _insert(connection, name, password, role, one_time=True)
        store.audit(connection, "page", f"added user {name} ({role})")
    return password


def new_password(store: Store, user_id: int) -> str:
    """Give a user a one-time password and end their sessions; return it. Raises AccessError: no such user."""
    password = secrets.token_urlsafe(12)
    with store.write() as connection:
        name = _name(connection, user_id)
        connection.execute(
            update(PAGE_USER).where(PAGE_USER.c.id == user_id).values(hash=_HASHER.hash(password), one_time=1)
        )
        connection.execute(delete(PAGE_SESSION).where(PAGE_SESSION.c.user_id == user_id))
        store.audit(connection, "page", f"one-time password made for {name}")
    return password


def set_role(store: Store, user_id: int, role: Role) -> None:
    """Change a user's role and end their sessions: what they have open was built for the role that they had.

    Raises:
        AccessError: nobody would be left who may manage users.
    """
    with store.write() as connection:
        name = _name(connection, user_id)
        if role != "admin":
            _keep_an_admin(connection, user_id)
        changed = update(PAGE_USER).where(PAGE_USER.c.id == user_id, PAGE_USER.c.role != role).values(role=role)
        if not connection.execute(changed).rowcount:
            return
        connection.execute(delete(PAGE_SESSION).where(PAGE_SESSION.c.user_id == user_id))
        store.audit(connection, "page", f"user {name} is {role} now")


def remove_user(store: Store, user_id: int) -> None:
    """Remove a user; their sessions end. Raises AccessError: nobody would be left who may manage users."""
    with store.write() as connection:
        name = _name(connection, user_id)
        _keep_an_admin(connection, user_id)
        connection.execute(delete(PAGE_USER).where(PAGE_USER.c.id == user_id))
        store.audit(connection, "page", f"removed user {name}")


def tokens(store: Store) -> list[Token]:
    """Return all tokens, newest first."""
    with store.read() as connection:
        rows = connection.execute(select(PAGE_TOKEN).order_by(PAGE_TOKEN.c.id.desc())).all()
    return [
        Token(id=r.id, name=r.name, created_at=r.created_at, expires_at=r.expires_at, seen_at=r.seen_at) for r in rows
    ]


def add_token(store: Store, name: str, *, days: float | None = None) -> str:
    """Make a token; return its secret, which nobody can read again. Raises AccessError: no name."""
    name = " ".join(name.split())[:100]
    if not name:
        raise AccessError("say what the token is for")
    secret = f"mien_{secrets.token_urlsafe(32)}"
    now = time.time()
    expires = None if days is None else now + days * 86400
    with store.write() as connection:
        connection.execute(
            insert(PAGE_TOKEN).values(name=name, hash=digest(secret), created_at=now, expires_at=expires)
        )
        store.audit(connection, "page", f"made token {name!r}")
    return secret


def remove_token(store: Store, token_id: int) -> None:
    """Take a token back; it stops working at once."""
    with store.write() as connection:
        row = connection.execute(select(PAGE_TOKEN.c.name).where(PAGE_TOKEN.c.id == token_id)).first()
        connection.execute(delete(PAGE_TOKEN).where(PAGE_TOKEN.c.id == token_id))
        if row is not None:
            store.audit(connection, "page", f"removed token {row.name!r}")


def token(store: Store, secret: str) -> Token | None:
    """Return the token with this secret if it may be used, noting that it was."""
    now = time.time()
    with store.read() as connection:
        row = connection.execute(select(PAGE_TOKEN).where(PAGE_TOKEN.c.hash == digest(secret[:200]))).first()
    if row is None or (row.expires_at is not None and now >= row.expires_at):
        return None
    if row.seen_at is None or now - row.seen_at > 60:
        _note_use(store, update(PAGE_TOKEN).where(PAGE_TOKEN.c.id == row.id).values(seen_at=now))
    return Token(id=row.id, name=row.name, created_at=row.created_at, expires_at=row.expires_at, seen_at=now)


def token_holds(store: Store, token_id: int) -> bool:
    """Return whether a token may still be used: nobody has taken it back, and it has not run out."""
    with store.read() as connection:
        row = connection.execute(select(PAGE_TOKEN.c.expires_at).where(PAGE_TOKEN.c.id == token_id)).first()
    return row is not None and (row.expires_at is None or time.time() < row.expires_at)


def _note_use(store: Store, note: Update) -> None:
    """Write down that something is in use. Where that cannot be, nobody is turned away for it."""
    if time.monotonic() < _unwritable["until"]:
        return
    try:
        with store.write() as connection:
            connection.execute(note)
    except StoreError as error:
        _unwritable["until"] = time.monotonic() + NOTE_AGAIN_S
        log.warning("that the page is in use cannot be written down: %s", error)


def digest(secret: str) -> bytes:
    """Return what is kept of a session's or token's secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


# --- inside ---


def _matches(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False


def _checked_password(password: str) -> None:
    if len(password) < MIN_PASSWORD:
        raise AccessError(f"a password has at least {MIN_PASSWORD} characters")
    if len(password) > MAX_PASSWORD:
        raise AccessError(f"a password has at most {MAX_PASSWORD} characters")
    if len(set(password)) < 4:
        raise AccessError("this password is too easy to guess")


def _is_used(connection: Any) -> bool:
    """Whether somebody has logged in, or been added."""
    rows = connection.execute(select(PAGE_USER)).all()
    return len(rows) > 1 or any(row.seen_at is not None or not row.one_time for row in rows)


def _insert(connection: Any, name: str, password: str, role: Role, *, one_time: bool) -> None:
    connection.execute(
        insert(PAGE_USER).values(
            name=name,
            name_key=name_key(name),
            hash=_HASHER.hash(password),
            role=role,
            one_time=int(one_time),
            created_at=time.time(),
        )
    )


def _name(connection: Any, user_id: int) -> str:
    row = connection.execute(select(PAGE_USER.c.name).where(PAGE_USER.c.id == user_id)).first()
    if row is None:
        raise AccessError("there is no such user any more")
    return str(row.name)


def _keep_an_admin(connection: Any, user_id: int) -> None:
    others = select(func.count()).where(PAGE_USER.c.role == "admin", PAGE_USER.c.id != user_id)
    if connection.execute(others).scalar_one() == 0:
        raise AccessError("this is the only administrator: make somebody else one first")


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=row.role,
        one_time=bool(row.one_time),
        created_at=row.created_at,
        seen_at=row.seen_at,
    )
