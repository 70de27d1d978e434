"""Checksums of weight files: no parser notices a changed bit in weights, the network only answers something else.

`SHA256SUMS` beside a file lists it as `sha256sum` writes it; of files in installed packages pip has kept the checksums.
"""

import hashlib
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

SUMS: Final = "SHA256SUMS"


def damaged(path: Path) -> bool:
    """Whether the file is another one than was listed. False where nobody has listed it.

    Raises OSError when it cannot be read.
    """
    listed = _beside(path)
    if listed is None:
        listed = _of_package(path)
    return listed is not None and listed != _sum(path)


def write(folder: Path, names: Iterable[str]) -> None:
    """List these files of a folder, and let what is listed already stay, if it is still there."""
    kept = {name for name in _lines(folder / SUMS) if (folder / name).is_file()}
    lines = [f"{_sum(folder / name).hex()}  {name}\n" for name in sorted(kept | set(names))]
    (folder / SUMS).write_text("".join(lines), encoding="ascii", newline="\n")


def _sum(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _lines(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {row[1]: row[0] for row in rows if len(row) == 2}


def _beside(path: Path) -> bytes | None:
    listed = _lines(path.parent / SUMS).get(path.name)
    try:
        return None if listed is None else bytes.fromhex(listed)
    except ValueError:
        return b""  # the list itself is damaged: rather refuse than guess


def _of_package(path: Path) -> bytes | None:
    """What pip has written down of a file two folders or less below the packages' folder."""
    for package in list(path.parents)[:2]:
        try:
            files = metadata.distribution(package.name).files or []
        except (metadata.PackageNotFoundError, ValueError):
            continue
        for entry in files:
            known = entry.hash if entry.name == path.name and Path(str(entry.locate())) == path else None
            if known is not None and known.mode == "sha256":
                return urlsafe_b64decode(known.value + "=" * (-len(known.value) % 4))
    return None
