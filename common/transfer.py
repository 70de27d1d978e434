"""Export and import of people: one encrypted file that another Mien with the key can read."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import encryption, people
from common.encryption import Cipher, KeyProblem
from common.people import PeopleError, Person, Reference
from common.store import Store

MAGIC = b"mien people\n"
VERSION = 1
FOLDER = "exports"  # in the data directory: exports that are kept there are cleaned when somebody is forgotten
MAX_BYTES = 2**31
_ABOUT = "people export"


@dataclass(slots=True)
class Report:
    """What came of an import: how many were added, and whose names were taken."""

    added: int = 0
    left_out: list[str] = field(default_factory=list)


def default_path(data_dir: Path) -> Path:
    """Return where an export goes unless it is said: the folder ``exports`` of the data directory."""
    return data_dir / FOLDER / f"people-{time.strftime('%Y%m%d-%H%M%S')}.mien"


def write(store: Store, path: Path, who: Sequence[str] = (), *, force: bool = False) -> int:
    """Write people (default: all) to a file, encrypted with the store's key; returns how many.

    Raises:
        PeopleError: no such person, or the file is there already (without ``force``) or cannot be written.
    """
    if os.path.exists(path) and not force:  # a path that is no path is told of when it is written
        raise PeopleError(f"{path} exists: choose another name, or replace it with --force")
    chosen = [people.find(store, one) for one in who] if who else people.everybody(store)
    entries = [_entry(store, person) for person in chosen]
    write_entries(store.cipher, path, entries)
    with store.write() as connection:
        store.audit(connection, "exported", f"{len(entries)} people to {path.name}")
    return len(entries)


def read(store: Store, path: Path, *, key: str | None = None) -> Report:
    """Add the people in a file; those whose name is taken are left out. All are added, or none.

    Args:
        key: of the store that wrote it, as it stands in its key file; None: this store's.

    Raises:
        PeopleError: no export, damaged, of a newer version, or of another key. Nothing was changed.
    """
    try:
        cipher = store.cipher if key is None else Cipher(encryption.parsed(key, "--key"))
    except KeyProblem as error:
        raise PeopleError(str(error)) from error
    entries = read_entries(cipher, path)
    report = Report()
    taken = {people.name_key(person.name) for person in people.everybody(store)}
    try:
        with store.write() as connection:
            for entry in entries:
                if people.name_key(entry["name"]) in taken:
                    report.left_out.append(entry["name"])
                    continue
                fields = {name: entry[name] for name in ("role", "notes", "consent", "consent_until")}
                references = [_reference(one) for one in entry["references"]]
                people.add_in(store, connection, entry["name"], references, **fields)
                taken.add(people.name_key(entry["name"]))
                report.added += 1
            store.audit(connection, "imported", f"{report.added} people from {path.name}")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, PeopleError):
            raise
        raise PeopleError(f"{path} is damaged: {error!r}. Nothing was changed.") from error
    return report


def write_entries(cipher: Cipher, path: Path, entries: list[dict[str, Any]]) -> None:
    """Write an export. Raises PeopleError when that cannot be."""
    sealed = cipher.seal(json.dumps(entries, ensure_ascii=False).encode(), _ABOUT)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + f"{VERSION}\n".encode() + sealed)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says it all
            part.unlink(missing_ok=True)
        raise PeopleError(f"{str(path)[:200]} cannot be written: {error.strerror or error}") from error


def read_entries(cipher: Cipher, path: Path) -> list[dict[str, Any]]:
    """Return what an export holds. Raises PeopleError: see ``read``."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PeopleError(f"{path} is too large for an export")
        data = path.read_bytes()
    except OSError as error:
        raise PeopleError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from error
    head, _, rest = data.removeprefix(MAGIC).partition(b"\n")
    if not data.startswith(MAGIC) or not head.isdigit():
        raise PeopleError(f"{path} is no export of people")
    if int(head[:9]) > VERSION:
        raise PeopleError(
            f"{path} was written by a newer Mien (version {head[:9].decode()}, this one reads up to {VERSION}): "
            "update this one. Nothing was changed."
        )
    try:
        entries = json.loads(cipher.open(rest, _ABOUT))
    except KeyProblem as error:
        raise PeopleError(
            f"{path} cannot be opened with this key: give the key of the store that wrote it (--key), or the file is "
            "damaged. Nothing was changed."
        ) from error
    except ValueError as error:
        raise PeopleError(f"{path} is damaged: {error}") from error
    if not isinstance(entries, list):
        raise PeopleError(f"{path} is damaged: a list of people was expected")
    return entries


def _entry(store: Store, person: Person) -> dict[str, Any]:
    return {
        "number": person.id,
        "name": person.name,
        "role": person.role,
        "notes": person.notes,
        "consent": person.consent,
        "consent_until": person.consent_until,
        "model": people.MODEL,
        "references": [
            {
                "embedding": base64.b64encode(np.asarray(one.embedding, "<f4").tobytes()).decode(),
                "crop": None if one.crop is None else base64.b64encode(one.crop).decode(),
                "source": one.source,
                "quality": one.quality,
            }
            for _, one in people.references_of(store, f"#{person.id}")
        ],
    }


def _reference(entry: dict[str, Any]) -> Reference:
    embedding = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4").astype(np.float32)
    if embedding.shape != (128,) or not np.isfinite(embedding).all():
        raise ValueError("an embedding that is none")
    crop = None if entry["crop"] is None else base64.b64decode(entry["crop"])
    return Reference(embedding=embedding, crop=crop, source=str(entry["source"]), quality=float(entry["quality"]))
