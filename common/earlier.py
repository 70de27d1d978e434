"""What somebody was before: other names, numbers of people made one with them, numbers they had as a stranger.

Files that Mien keeps (snapshots, exports, recordings) were written under what somebody was then. It is kept until the
person is forgotten, so that those can be cleaned, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from common.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Names, numbers of people, and numbers of strangers that were somebody."""

    names: frozenset[str] = frozenset()
    people: frozenset[int] = frozenset()
    strangers: frozenset[int] = frozenset()


def earlier_of(store: Store, connection: Connection, person: int) -> Earlier:
    """Return what a person was before."""
    kept = store.setting_in(connection, _key(person))
    told = {} if kept is None else json.loads(kept)
    return Earlier(**{field: frozenset(values) for field, values in told.items()})


def remember(
    store: Store,
    connection: Connection,
    person: int,
    *,
    names: Iterable[str] = (),
    people: Iterable[int] = (),
    strangers: Iterable[int] = (),
) -> None:
    """Note that a person was called so, or was one of these."""
    there = earlier_of(store, connection, person)
    told = {
        "names": sorted(there.names.union(names)),
        "people": sorted(there.people.union(people)),
        "strangers": sorted(there.strangers.union(strangers)),
    }
    store.set_setting(connection, _key(person), json.dumps(told).encode())


def forget(store: Store, connection: Connection, person: int) -> Earlier:
    """Keep nothing of that any more; return what it was."""
    there = earlier_of(store, connection, person)
    store.drop_setting(connection, _key(person))
    return there


def _key(person: int) -> str:
    return f"earlier.{person}"
