"""Results as a table: one row a face and frame, written as CSV, JSON lines or Parquet while they come.

A frame without a face has one row whose face columns are empty, so that every frame can be found. A table is written
beside its final name, as ``NAME.part.ENDING``, and gets that name when it is complete: whatever was written before an
interruption stays readable, and nobody takes it for the whole.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from common.expressions import EXPRESSIONS
from common.messages import Face, Probabilities, Result

Cell = str | int | float | bool | None
Row = dict[str, Cell]

# column: its type. Lengths in pixels of the picture, times in seconds since the source began.
COLUMNS: dict[str, type] = {
    "seq": int,
    "media_time_s": float,
    "file": str,  # of a folder's pictures
    "analysed": bool,
    "faces": int,  # in this frame
    "track": int,
    "identity": str,  # known, unknown or pending
    "person": int,
    "name": str,
    "distance": float,
    "identity_confidence": float,
    "x": float,
    "y": float,
    "width": float,
    "height": float,
    "score": float,
    "expression": str,  # ok, cannot_assess or pending
    "reason": str,
    "label": str,
    "confidence": float,
    **dict.fromkeys(EXPRESSIONS, float),  # this frame's own probabilities
    **{f"smoothed_{expression}": float for expression in EXPRESSIONS},
}
FORMATS = (".csv", ".jsonl", ".parquet")

_ROW_GROUP = 2000  # rows; a Parquet file is written in groups


class TableError(Exception):
    """A table that cannot be written; the text says why and what to do."""


def rows_of(result: Result) -> list[Row]:
    """Return a result's rows: one a face, or one without a face. Each has every column of ``COLUMNS``, in order."""
    frame: Row = {
        "seq": result.seq,
        "media_time_s": round(result.media_time_s, 6),
        "file": result.name,
        "analysed": result.analysed,
        "faces": len(result.faces),
    }
    empty: Row = dict.fromkeys(COLUMNS)
    return [empty | frame | _face(face) for face in result.faces] or [empty | frame]


def _face(face: Face) -> Row:
    identity, expression = face.identity, face.expression
    row: Row = {
        "track": face.track,
        "identity": identity.status,
        "person": identity.person,
        "name": identity.name,
        "distance": _rounded(identity.distance),
        "identity_confidence": _rounded(identity.confidence),
        "score": _rounded(face.score),
        "expression": expression.status,
        "reason": expression.reason,
        "label": expression.label,
        "confidence": _rounded(expression.confidence),
    }
    row |= {side: round(value, 3) for side, value in zip(("x", "y", "width", "height"), face.box, strict=True)}
    return row | _spread("", expression.probabilities) | _spread("smoothed_", expression.smoothed)


def _spread(prefix: str, probabilities: Probabilities | None) -> Row:
    if probabilities is None:
        return {}
    return {f"{prefix}{name}": _rounded(getattr(probabilities, name)) for name in EXPRESSIONS}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


# --- writing ---------------------------------------------------------------------------------------------------------


class Table(Protocol):
    """Takes rows as they come. Raises OSError when they cannot be written."""

    def write(self, rows: list[Row]) -> None:
        """Append rows; text formats have them on disk when this returns."""

    def close(self) -> None:
        """Make the file whole; closing twice does nothing."""


class CsvTable:
    """Comma-separated, UTF-8, with a header; an empty cell where there is nothing to say."""

    def __init__(self, path: Path, columns: dict[str, type] = COLUMNS) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, list(columns))
        self._writer.writeheader()

    def write(self, rows: list[Row]) -> None:
        self._writer.writerows([{name: _plain(cell) for name, cell in row.items()} for row in rows])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class JsonLinesTable:
    """One JSON object a line, UTF-8."""

    def __init__(self, path: Path, columns: dict[str, type] = COLUMNS) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, rows: list[Row]) -> None:
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ParquetTable:
    """Apache Parquet. Readable once it is closed: only a process that was killed outright leaves it unreadable."""

    def __init__(self, path: Path, columns: dict[str, type] = COLUMNS) -> None:
        arrow = importlib.import_module("pyarrow")
        kinds = {int: arrow.int64(), float: arrow.float64(), str: arrow.string(), bool: arrow.bool_()}
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._table: Callable[..., Any] = arrow.Table.from_pylist
        self._writer: Any = importlib.import_module("pyarrow.parquet").ParquetWriter(str(path), self._schema)
        self._rows: list[Row] = []

    def write(self, rows: list[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(self._rows, schema=self._schema))
            self._rows = []


def check_format(path: Path) -> None:
    """Raise TableError unless a table can be written under this name, by its ending and what is installed."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise TableError(f"{path}: results are written as {', '.join(FORMATS)}; end the file's name in one of these")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise TableError(
            f"{path}: Parquet needs one more package: pip install 'mien[parquet]' (or pip install pyarrow)"
        )


def create_table(path: Path, columns: dict[str, type] = COLUMNS) -> Table:
    """Create the file, which must have passed ``check_format``, with these columns. Raises OSError."""
    kinds: dict[str, Callable[[Path, dict[str, type]], Table]] = {
        ".csv": CsvTable,
        ".jsonl": JsonLinesTable,
        ".parquet": ParquetTable,
    }
    return kinds[path.suffix.lower()](path, columns)


def unfinished(path: Path) -> Path:
    """Return the name of a file while it is being written; its ending stays, so that every program opens it."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def _plain(cell: Cell) -> Cell:
    return ("true" if cell else "false") if isinstance(cell, bool) else cell
