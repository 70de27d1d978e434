"""Snapshots on disk: the plain picture, the annotated one, the result. Whole or not there.

The files of a snapshot are written under temporary names, brought to disk, then renamed; the JSON comes last and is the
sign that the snapshot is whole. They show who was where: only their owner may read them.

What somebody asked for is kept until somebody deletes it. What was taken for an alert, without anybody asking, has that
in its name, and is kept as long as episodes are.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import control
from common.messages import MessageError, Result
from common.settings import Config

PICTURE, ANNOTATED, RESULT = ".jpg", ".annotated.jpg", ".json"
_ALERT = "-alert"
_BLURRED_QUALITY = 92
_OF_ALERT = re.compile(rf".+-(\d{{8}}T\d{{6}}\.\d{{3}}Z)-\d+{_ALERT}(\.annotated)?\.(jpg|json)")


class SnapshotError(OSError):
    """A snapshot that could not be kept or taken; the text says why and what to do."""


def folder(config: Config) -> Path:
    """Return the folder that snapshots are kept in."""
    return config.storage.snapshot_dir or config.storage.data_dir / "snapshots"


def stem(result: Result, *, alert: bool = False) -> str:
    """Return what a snapshot's three files are called before their suffixes: camera, UTC time, number of the frame.

    Args:
        alert: it is taken for an alert, and says so.
    """
    name = f"{result.camera}-{_written(result.captured_at)}-{result.seq}"
    return name + _ALERT if alert else name


def paths(stem_path: Path) -> list[Path]:
    """Return the three files of a snapshot: picture, annotated picture, result."""
    return [stem_path.with_name(stem_path.name + suffix) for suffix in (PICTURE, ANNOTATED, RESULT)]


def write(target: Path, result: Result, picture: bytes | memoryview, annotated: bytes, *, alert: bool = False) -> Path:
    """Write a snapshot into the folder ``target``, which is made if need be; return its path without suffix.

    Args:
        picture, annotated: JPEG.
        alert: it is taken for an alert: ``sweep`` deletes it one day.

    Raises:
        SnapshotError: the disk is full, the folder cannot be written to, …; nothing of the snapshot is left then.
    """
    files = paths(target / stem(result, alert=alert))
    contents = (picture, annotated, result.model_dump_json(by_alias=True, indent=1).encode())
    parts = _parts(files)
    kept: list[Path] = []
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part, content in zip(parts, contents, strict=True):
            _fill(part, content)
        for part, path in zip(parts, files, strict=True):
            os.replace(part, path)
            kept.append(path)
        _sync_folder(target)
    except OSError as error:
        _remove((*parts, *kept))
        raise SnapshotError(_explain(error, target)) from error
    return target / stem(result, alert=alert)


def take_out(stem_path: Path, result: Any, faces: Sequence[Any]) -> None:
    """Take faces out of a snapshot that shows others, too: blurred in the picture, gone from the result.

    The annotated picture goes, for names are drawn into it; so does a plain one in which the faces cannot be blurred.

    Args:
        stem_path: the snapshot without suffix.
        result: what its JSON holds.
        faces: those of ``result["faces"]`` that are to go.

    Raises:
        OSError: a file cannot be changed.
    """
    picture, annotated, told = paths(stem_path)
    annotated.unlink(missing_ok=True)
    try:
        blurred = _blurred(picture.read_bytes(), result, faces)
    except FileNotFoundError:
        pass  # somebody has deleted it
    except (MessageError, KeyError, TypeError, ValueError, OverflowError):
        picture.unlink(missing_ok=True)  # it is no picture any more, or not the one that the boxes belong to
    else:
        _replace(picture, blurred)
    gone = [face.get("track") for face in faces]
    left = {**result, "faces": [face for face in result["faces"] if face not in faces]}
    left |= {key: None for key in ("selected", "enrolling") if _track_of(result.get(key)) in gone}
    _replace(told, json.dumps(left, indent=1).encode())  # last: what is cut short before is found again


def sweep(target: Path, before: float) -> int:
    """Delete the snapshots that were taken for alerts before a moment (unix seconds); return how many files.

    Raises:
        SnapshotError: the folder cannot be read, or a file not be deleted.
    """
    gone, oldest = 0, _written(before)
    try:
        for path in target.iterdir() if target.is_dir() else ():
            named = _OF_ALERT.fullmatch(path.name)
            # By its name: a copy, or one that a name was taken out of, has a new time of its own.
            if named and named[1] < oldest:
                path.unlink(missing_ok=True)
                gone += 1
    except OSError as error:
        why = error.strerror or str(error)
        raise SnapshotError(f"old snapshots in {target} cannot be deleted: {why}") from error
    return gone


def take(config: Config, camera: str | None, timeout_s: float = 5.0) -> list[Path]:
    """Ask the running snapshot stage for a snapshot; return the files: three a camera.

    Args:
        camera: its name; None for all cameras.

    Raises:
        SnapshotError: it could not be done; the text says why.
        NoAnswer: nobody answered.
    """
    if camera is not None and camera not in config.cameras:
        raise SnapshotError(f"there is no camera {camera!r}; configured: {', '.join(config.cameras)}")
    if camera is not None:
        asked: tuple[str | None, ...] = (camera,)
    else:  # cameras of other cells have snapshot stages of their own
        asked = (None,) if len(config.own_cameras) == len(config.cameras) else tuple(config.cameras)
    found: list[Path] = []
    problems: list[str] = []
    for one in asked:
        args: dict[str, control.Argument] = {} if one is None else {"camera": one}
        reply = control.ask(config, "snapshot", "snapshot", timeout_s=timeout_s, **args)
        if not reply.ok:
            problems.append(reply.error or "the snapshot stage gave no reason")
        found += [path for kept in reply.result.values() for path in paths(Path(str(kept)))]
    if problems:
        saved = f"; saved: {', '.join(map(str, found))}" if found else ""
        raise SnapshotError("; ".join(problems) + saved)
    return found


def command(config: Config, camera: str | None) -> int:
    """Take a snapshot and print the files' paths: the command ``launch.py snapshot``. Returns the exit code."""
    try:
        files = take(config, camera)
    except (SnapshotError, control.NoAnswer) as error:
        print(error, file=sys.stderr)
        return 1
    for path in files:
        print(path)
    return 0


def _written(at: float) -> str:
    """Return a moment as names have it: the later, the greater."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"


def _own(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parts(files: Iterable[Path]) -> list[Path]:
    mark = f".{uuid.uuid4().hex[:8]}.part"
    return [path.with_name(path.name + mark) for path in files]


def _fill(part: Path, content: bytes | memoryview) -> None:
    with open(part, "xb", opener=_own) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    [part] = _parts([path])
    try:
        _fill(part, content)
        os.replace(part, path)
    except OSError:
        _remove((part,))
        raise


def _blurred(picture: bytes, result: Any, faces: Sequence[Any]) -> bytes:
    # Here, not above: OpenCV takes a while, and hardly any command needs it.
    from common import jpeg
    from common.blurring import blur_faces, wider

    pixels = jpeg.decode(picture, result["width"], result["height"])
    blur_faces(pixels, [wider(face["box"]) for face in faces])
    return jpeg.encode(pixels, _BLURRED_QUALITY)


def _track_of(chosen: Any) -> Any:
    return chosen.get("track") if isinstance(chosen, dict) else chosen


def _sync_folder(target: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there; a rename is on disk when it returns
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        # Best effort: on a file system that just turned read-only even this fails, and the first error says it all.
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _explain(error: OSError, target: Path) -> str:
    advice = {
        errno.ENOSPC: "the disk is full: make room, or set storage.snapshot_dir to another disk",
        errno.EDQUOT: "your quota on that disk is used up: make room, or set storage.snapshot_dir to another disk",
        errno.EROFS: "the disk is read-only: set storage.snapshot_dir to a folder that can be written to",
        errno.EACCES: "this user may not write there: change the permissions, or set storage.snapshot_dir",
        errno.EPERM: "this user may not write there: change the permissions, or set storage.snapshot_dir",
        errno.ENOTDIR: "a part of that path is a file, not a folder: set storage.snapshot_dir to another folder",
        errno.EEXIST: "there is a file of that name where the folder should be: set storage.snapshot_dir",
    }
    reason = advice.get(error.errno or 0) or error.strerror or str(error)
    return f"the snapshot could not be kept in {target}: {reason}"
