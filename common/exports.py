"""History as a table for other programs, and taking a forgotten person out of the tables that Mien keeps."""

from __future__ import annotations

import csv
import importlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from common import history_store
from common.expressions import EXPRESSIONS
from common.history_rows import REASONS, Steps
from common.history_store import Subject
from common.ledger import Ledger
from common.people import PeopleError
from common.tables import FORMATS, Row, Table, check_format, create_table, unfinished

# column: its type. One row a subject and step in which something was seen.
COLUMNS: dict[str, type] = {
    "time": str,  # ISO 8601, UTC
    "at": int,  # unix seconds of the step's beginning
    "seconds": int,  # length of the step
    "person": int,
    "name": str,
    "unknown": int,  # number of an unknown person
    "present_s": float,
    "assessed_s": float,
    "label": str,  # the expression that showed most; empty: nothing could be assessed
    **dict.fromkeys(EXPRESSIONS, float),  # means over the assessed time
    "reason": str,  # why most of what could not be assessed could not
}
DAY = 86400
_CHUNK = 5000


class ExportError(RuntimeError):
    """A table that cannot be written; the text says why and what to do."""


def rows(ledger: Ledger, subject: Subject, name: str | None, begin: float, end: float, step_s: int) -> Iterator[Row]:
    """Yield a subject's rows, about a day of the store at a time."""
    whole = math.lcm(step_s, 60)  # neither a step nor a minute of old history is to be cut in two
    part = max(1, DAY // whole) * whole
    first = begin
    while first < end:
        last = min(end, (first // part + 1) * part)
        found = history_store.steps(ledger, subject, first, last, step_s=step_s)
        # Old history is there by the minute: the step says what the row is about.
        length = max(step_s, 60) if step_s < 60 and history_store.is_old(ledger, subject, first, last) else step_s
        for index in range(len(found)):
            yield _row(found, index, subject, name, length)
        first = last


def write(
    ledger: Ledger,
    path: Path,
    subjects: Sequence[Subject],
    begin: float,
    end: float,
    *,
    step_s: int,
    force: bool = False,
) -> int:
    """Write history to a file (.csv, .jsonl or .parquet by its ending); return how many rows.

    Raises:
        ExportError: it is there already (without ``force``), or cannot be written.
        TableError: a format that cannot be written.
    """
    check_format(path)
    for there in (path, unfinished(path)):
        if there.exists() and not force:
            raise ExportError(f"{there} exists: choose another name, or replace it with --force")
    names = names_of(ledger)
    count = 0
    try:
        table = create_table(unfinished(path), COLUMNS)
        try:
            for subject in subjects:
                name = names.get(subject.person) if subject.person is not None else None
                waiting: list[Row] = []
                for row in rows(ledger, subject, name, begin, end, step_s):
                    waiting.append(row)
                    count += 1
                    if len(waiting) >= _CHUNK:
                        table.write(waiting)
                        waiting = []
                table.write(waiting)
        finally:
            table.close()
        unfinished(path).replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error
    return count


def names_of(ledger: Ledger) -> dict[int, str]:
    """Return the names of everybody who is enrolled, by number."""
    with ledger.read() as connection:
        return {row["id"]: row["name"] for row in connection.execute("SELECT id, name FROM person")}


def clean(folder: Path, people: Collection[int], strangers: Collection[int] = ()) -> int:
    """Take somebody's rows out of the exports in a folder, by all numbers they had; return how many files.

    Raises:
        PeopleError: one cannot be.
    """

    def theirs(row: Row) -> bool:
        return row.get("person") in people or row.get("unknown") in strangers

    cleaned = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in FORMATS:
            continue
        try:
            found = _read(path)
            if found is None or not any(map(theirs, found)):
                continue
            table: Table = create_table(unfinished(path), COLUMNS)
            try:
                table.write([row for row in found if not theirs(row)])
            finally:
                table.close()
            unfinished(path).replace(path)
        except (OSError, ValueError) as error:
            raise PeopleError(f"{path} cannot be cleaned, so that not all was forgotten: {error}") from error
        cleaned += 1
    return cleaned


# --- inside ---


def _row(found: Steps, index: int, subject: Subject, name: str | None, length: int) -> Row:
    at, assessed = int(found.at[index]), float(found.assessed_s[index])
    reasons = found.reasons_s[index]
    row: Row = {
        "time": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "at": at,
        "seconds": length,
        "person": subject.person,
        "name": name,
        "unknown": subject.unknown,
        "present_s": round(float(found.present_s[index]), 2),
        "assessed_s": round(assessed, 2),
        "label": EXPRESSIONS[int(np.argmax(found.dominant_s[index]))] if assessed else None,
    }
    means = zip(EXPRESSIONS, found.probabilities[index].tolist(), strict=True)
    row |= {one: round(p, 4) if assessed else None for one, p in means}
    return row | {"reason": REASONS[int(np.argmax(reasons))] if reasons.any() else None}


def _read(path: Path) -> list[Row] | None:
    """Return the rows of an export of history, None when the file is something else."""
    if path.suffix.lower() == ".parquet":
        table: Any = importlib.import_module("pyarrow.parquet").read_table(path)
        return table.to_pylist() if table.column_names == list(COLUMNS) else None
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            found = [json.loads(line) for line in file]
            return found if all(isinstance(row, dict) and list(row) == list(COLUMNS) for row in found) else None
        reader = csv.DictReader(file)
        if reader.fieldnames != list(COLUMNS):
            return None
        return [{name: _typed(name, cell) for name, cell in row.items()} for row in reader]


def _typed(name: str, cell: str) -> Any:
    return COLUMNS[name](cell) if cell else None
