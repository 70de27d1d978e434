"""Users, passwords, sessions, tokens: kept in the store so that reading it is of no use, and never without an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from common import people
from common.page import access
from common.page.access import AccessError
from common.page.attempts import FREE, Attempts
from common.schema import PAGE_SESSION, PAGE_TOKEN, PAGE_USER
from common.store import Store

LONG = {"longest_s": 3600.0, "idle_s": 600.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data") as opened:
        yield opened


def admin(store: Store) -> access.User:
    password = access.first_password(store)
    assert password is not None
    user = access.check(store, "admin", password)
    assert user is not None
    return user


def test_the_first_password_works_once_and_is_another_one_until_somebody_has_logged_in(store: Store) -> None:
    first, second = access.first_password(store), access.first_password(store)
    assert first and second and first != second and len(first) >= 12
    assert access.check(store, "admin", first) is None
    user = access.check(store, "Admin ", second)
    assert user is not None and user.one_time and user.role == "admin"
    access.begin(store, user)
    assert access.first_password(store) is None


def test_a_page_that_is_in_use_starts_also_while_the_store_cannot_be_written(store: Store, tmp_path: Path) -> None:
    access.begin(store, admin(store))
    with Store(tmp_path / "data") as other, other.write():
        began = time.monotonic()
        assert access.first_password(store) is None
        assert time.monotonic() - began < 2


def test_passwords_are_argon2_hashes_and_a_bad_new_one_is_refused_with_the_reason(store: Store) -> None:
    user = admin(store)
    password = access.new_password(store, user.id)
    for old, new, why in (
        ("wrong", "long enough for this", "the present password is wrong"),
        (password, password, "the new password is the old one"),
        (password, "short", "at least 10 characters"),
        (password, "a" * 300, "at most 200"),
        (password, "aaaaaaaaaaaa", "too easy"),
    ):
        with pytest.raises(AccessError, match=why):
            access.set_password(store, user, old, new)
    access.set_password(store, user, password, "long enough for this")
    with store.read() as connection:
        hashed = connection.execute(select(PAGE_USER.c.hash)).scalar_one()
    assert hashed.startswith("$argon2id$") and "long enough" not in hashed
    changed = access.check(store, "admin", "long enough for this")
    assert changed is not None and not changed.one_time


def test_a_name_that_nobody_has_takes_as_long_as_a_wrong_password(store: Store) -> None:
    admin(store)

    def seconds(name: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            assert access.check(store, name, "not the password") is None
            times.append(time.perf_counter() - began)
        return min(times)

    nobody, wrong = seconds("nobody"), seconds("admin")
    assert nobody > 0.4 * wrong


def test_of_sessions_and_tokens_only_a_hash_is_kept(store: Store) -> None:
    user = admin(store)
    secret, token = access.begin(store, user), access.add_token(store, "ward board")
    with store.read() as connection:
        kept = connection.execute(select(PAGE_SESSION.c.id)).scalar_one()
        kept_token = connection.execute(select(PAGE_TOKEN.c.hash)).scalar_one()
    assert kept == access.digest(secret) and kept_token == access.digest(token)
    for path in store.place.data_dir.glob("mien.db*"):
        assert secret.encode() not in path.read_bytes() and token.encode() not in path.read_bytes()


def test_a_session_ends_after_its_time_when_idle_and_when_ended(store: Store) -> None:
    user = admin(store)
    key = access.digest(access.begin(store, user))
    found = access.session(store, key, **LONG)
    assert found is not None and found.user.name == "admin"
    now = time.time()
    for began, seen in ((now - 4000, now), (now - 700, now - 601)):
        key = access.digest(access.begin(store, user))
        with store.write() as connection:
            changed = update(PAGE_SESSION).where(PAGE_SESSION.c.id == key)
            connection.execute(changed.values(began_at=began, seen_at=seen))
        assert access.session(store, key, **LONG) is None
        assert access.session(store, key, longest_s=1e9, idle_s=1e9) is None  # gone for good
    key = access.digest(access.begin(store, user))
    access.end(store, key)
    assert access.session(store, key, **LONG) is None


def test_a_new_password_ends_every_session_of_its_user(store: Store) -> None:
    user = admin(store)
    key = access.digest(access.begin(store, user))
    access.new_password(store, user.id)
    assert access.session(store, key, **LONG) is None


def test_another_role_ends_every_session_of_its_user_and_the_same_one_none(store: Store) -> None:
    keeper = admin(store)
    access.add_user(store, "Kim", "operator")
    [kim] = [user for user in access.users(store) if user.name == "Kim"]
    key, keepers = access.digest(access.begin(store, kim)), access.digest(access.begin(store, keeper))
    access.set_role(store, kim.id, "operator")
    assert access.session(store, key, **LONG) is not None
    access.set_role(store, kim.id, "viewer")
    assert access.session(store, key, **LONG) is None and access.session(store, keepers, **LONG) is not None


def test_a_password_that_is_changed_ends_the_other_sessions(store: Store) -> None:
    user = admin(store)
    password = access.new_password(store, user.id)
    kept, other = (access.digest(access.begin(store, user)) for _ in range(2))
    access.set_password(store, user, password, "my own password", keep=kept)
    assert access.session(store, kept, **LONG) is not None
    assert access.session(store, other, **LONG) is None


def test_the_last_administrator_stays(store: Store) -> None:
    user = admin(store)
    for refused in (lambda: access.set_role(store, user.id, "viewer"), lambda: access.remove_user(store, user.id)):
        with pytest.raises(AccessError, match="only administrator"):
            refused()
    access.add_user(store, "Kim", "admin")
    access.set_role(store, user.id, "viewer")
    assert {one.name: one.role for one in access.users(store)} == {"admin": "viewer", "Kim": "admin"}


def test_names_are_told_apart_as_people_read_them(store: Store) -> None:
    access.add_user(store, "Kim", "viewer")
    with pytest.raises(AccessError, match="already"):
        access.add_user(store, "KIM", "viewer")
    with pytest.raises(AccessError, match="name is needed"):
        access.add_user(store, "  ", "viewer")


def test_a_token_works_until_it_ends_or_is_taken_back(store: Store) -> None:
    secret = access.add_token(store, "ward board")
    found = access.token(store, secret)
    assert found is not None and found.name == "ward board"
    assert access.token(store, secret + "x") is None
    access.remove_token(store, found.id)
    assert access.token(store, secret) is None
    assert access.token(store, access.add_token(store, "short", days=-1)) is None


def test_every_change_of_users_is_in_the_audit_log(store: Store) -> None:
    user = admin(store)
    access.begin(store, user)
    access.add_user(store, "Kim", "viewer")
    access.remove_token(store, 1) if access.add_token(store, "board") else None
    said = [f"{line.did}: {line.about}" for line in people.audit_log(store)]
    assert "log-in: admin" in said and "page: added user Kim (viewer)" in said
    assert "page: made token 'board'" in said and "page: removed token 'board'" in said


def test_after_five_wrong_passwords_the_wait_doubles_by_name_and_by_address() -> None:
    attempts = Attempts()
    keys = ("name kim", "address 10.0.0.1")
    for _ in range(FREE):
        assert attempts.wait_s(keys, 0.0) == 0.0
        attempts.wrong(keys, 0.0)
    assert attempts.wait_s(("name kim",), 0.0) == attempts.wait_s(("address 10.0.0.1",), 0.0) == 15.0
    attempts.wrong(keys, 0.0)
    assert attempts.wait_s(keys, 0.0) == 30.0
    assert attempts.wait_s(keys, 30.0) == 0.0
    assert attempts.wait_s(("name lee", "address 10.0.0.2"), 0.0) == 0.0
    for _ in range(30):
        attempts.wrong(keys, 0.0)
    assert attempts.wait_s(keys, 0.0) == 900.0
    attempts.right(keys)
    assert attempts.wait_s(keys, 0.0) == 0.0


def test_memory_of_wrong_passwords_is_bounded() -> None:
    attempts = Attempts()
    for number in range(20_500):
        attempts.wrong((f"name {number}",), 0.0)
    assert len(attempts._wrong) == 10_000


def test_who_is_logged_in_stays_so_while_nothing_can_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("common.backend.BUSY_MS", 50)
    monkeypatch.setattr(access, "_unwritable", {"until": 0.0})
    key = access.digest(access.begin(store, admin(store)))
    with store.write() as connection:
        connection.execute(update(PAGE_SESSION).values(seen_at=time.time() - 300))
    with Store(store.place) as other, store.write() as connection:
        store.changed(connection)
        assert access.session(other, key, **LONG) is not None
        assert access.session(other, key, **LONG) is not None
        assert access.session(other, key, longest_s=3600.0, idle_s=100.0) is None  # its time is over all the same
    assert caplog.text.count("cannot be written down") == 1
