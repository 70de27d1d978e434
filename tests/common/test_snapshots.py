from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from common import jpeg, snapshots
from common.drawing import annotate
from common.messages import Box, Result
from common.settings import Config, StorageConfig
from common.snapshots import SnapshotError
from tests.conftest import ROOT, stage_environment
from tests.showing import five, photo

PICTURE = jpeg.encode(photo(640, 360), 80)
SHOWN = five(640, 360)
DRAWN = jpeg.encode(annotate(photo(640, 360), SHOWN), 90)

# Run in a name space of its own, where a tiny disk can be mounted without anybody else seeing it.
IN_A_TINY_DISK = """
import errno, os, sys
from pathlib import Path
from common import snapshots
from tests.common.test_snapshots import PICTURE, DRAWN, SHOWN
target = Path(sys.argv[1])
try:
    snapshots.write(target, SHOWN, PICTURE, DRAWN)
except snapshots.SnapshotError as error:
    print(error)
else:
    print("kept")
print(sorted(os.listdir(target)))
"""


def test_a_snapshot_is_three_files_that_say_what_was_seen(tmp_path: Path) -> None:
    kept = snapshots.write(tmp_path / "new" / "folder", SHOWN, PICTURE, DRAWN)
    picture, annotated, told = snapshots.paths(kept)
    assert kept.name == "cam0-20260921T141320.123Z-7"
    assert picture.read_bytes() == PICTURE
    assert cv2.imread(str(annotated)).shape == (360, 640, 3)
    assert Result.model_validate_json(told.read_text()) == SHOWN
    assert json.loads(told.read_text())["faces"][2]["identity"]["name"] == "张伟"
    assert sorted(path.name for path in kept.parent.iterdir()) == sorted(
        path.name for path in (picture, annotated, told)
    )


def faces_of(picture: NDArray[np.uint8], boxes: Iterable[Box]) -> list[NDArray[np.uint8]]:
    return [picture[int(y) : int(y + height), int(x) : int(x + width)] for x, y, width, height in boxes]


def test_a_face_is_taken_out_of_the_picture_and_of_what_is_said(tmp_path: Path) -> None:
    shown = SHOWN.model_copy(update={"selected": 3})
    kept = snapshots.write(tmp_path / "snapshots", shown, PICTURE, DRAWN)
    picture, _, told = snapshots.paths(kept)
    result = json.loads(told.read_text())
    snapshots.take_out(kept, result, [face for face in result["faces"] if face["track"] == 3])
    assert sorted(kept.parent.iterdir()) == sorted([picture, told])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (picture, told))
    left = Result.model_validate_json(told.read_text())
    assert [face.track for face in left.faces] == [1, 2, 4, 5] and left.selected is None
    boxes = [face.box for face in shown.faces]
    before = faces_of(jpeg.decode(PICTURE, 640, 360), boxes)
    after = faces_of(jpeg.decode(picture.read_bytes(), 640, 360), boxes)
    changed = [float(np.abs(a.astype(float) - b).mean()) for a, b in zip(after, before, strict=True)]
    assert changed[2] > 10 and max(changed[:2] + changed[3:]) < 3, changed


@pytest.mark.parametrize("damage", ["no picture", "another size", "no box"])
def test_a_picture_in_which_a_face_cannot_be_blurred_goes(tmp_path: Path, damage: str) -> None:
    kept = snapshots.write(tmp_path / "snapshots", SHOWN, PICTURE, DRAWN)
    picture, _, told = snapshots.paths(kept)
    result = json.loads(told.read_text())
    if damage == "no picture":
        picture.write_bytes(b"a picture")
    elif damage == "another size":
        picture.write_bytes(jpeg.encode(photo(320, 180), 80))
    else:
        del result["faces"][0]["box"]
    snapshots.take_out(kept, result, result["faces"][:1])
    assert list(kept.parent.iterdir()) == [told]
    assert len(json.loads(told.read_text())["faces"]) == 4
    snapshots.take_out(kept, json.loads(told.read_text()), [])  # somebody has deleted the picture: no harm


def test_a_snapshot_is_its_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        kept = snapshots.write(tmp_path / "snapshots", SHOWN, PICTURE, DRAWN)
    finally:
        os.umask(umask)
    assert os.name != "posix" or stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert os.name != "posix" or {stat.S_IMODE(path.stat().st_mode) for path in snapshots.paths(kept)} == {0o600}


def test_what_was_taken_for_alerts_goes_when_it_is_old_and_nothing_else(tmp_path: Path) -> None:
    newer = SHOWN.model_copy(update={"captured_at": SHOWN.captured_at + 100, "seq": 8})
    asked = snapshots.write(tmp_path, SHOWN, PICTURE, DRAWN)
    old, new = (snapshots.write(tmp_path, result, PICTURE, DRAWN, alert=True) for result in (SHOWN, newer))
    other = tmp_path / "ward-alert.jpg"
    other.write_bytes(PICTURE)
    assert snapshots.sweep(tmp_path, SHOWN.captured_at) == 0
    assert snapshots.sweep(tmp_path, SHOWN.captured_at + 50) == 3
    assert not any(path.exists() for path in snapshots.paths(old))
    assert all(path.exists() for path in (*snapshots.paths(asked), *snapshots.paths(new), other))
    assert snapshots.sweep(tmp_path / "nowhere", SHOWN.captured_at + 50) == 0


def test_the_same_picture_twice_is_one_snapshot(tmp_path: Path) -> None:
    for _ in range(2):
        snapshots.write(tmp_path, SHOWN, PICTURE, DRAWN)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_json_comes_last_and_a_failure_in_between_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = snapshots.os.replace

    def failing(source: Path, target: Path) -> None:
        order.append(target.name)
        if target.suffix == ".json":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(snapshots.os, "replace", failing)
    with pytest.raises(SnapshotError, match="Input/output error"):
        snapshots.write(tmp_path, SHOWN, PICTURE, DRAWN)
    assert [name.rsplit("-", 1)[1] for name in order] == ["7.jpg", "7.annotated.jpg", "7.json"]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    told, left = _on_a_disk(tmp_path, "size=64k")
    assert "the disk is full" in told and str(tmp_path) in told
    assert left == "[]"


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    told, left = _on_a_disk(tmp_path, "size=4m,ro")
    assert "the disk is read-only" in told and str(tmp_path) in told
    assert left == "[]"


def test_a_disk_with_room_is_written_to(tmp_path: Path) -> None:
    told, left = _on_a_disk(tmp_path, "size=4m")
    assert told == "kept" and left.count("cam0-") == 3


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SnapshotError, match="is a file, not a folder"):
        snapshots.write(tmp_path / "file" / "snapshots", SHOWN, PICTURE, DRAWN)
    with pytest.raises(SnapshotError, match="a file of that name where the folder should be"):
        snapshots.write(tmp_path / "file", SHOWN, PICTURE, DRAWN)


def test_snapshots_are_kept_in_the_data_directory_unless_set_otherwise(tmp_path: Path) -> None:
    assert snapshots.folder(Config(storage=StorageConfig(data_dir=tmp_path))) == tmp_path / "snapshots"
    elsewhere = StorageConfig(data_dir=tmp_path, snapshot_dir=tmp_path / "there")
    assert snapshots.folder(Config(storage=elsewhere)) == tmp_path / "there"


def test_a_camera_that_is_not_configured_is_refused_at_once() -> None:
    with pytest.raises(SnapshotError, match="no camera 'cam7'; configured: cam0"):
        snapshots.take(Config(), "cam7")


def _on_a_disk(folder: Path, options: str) -> tuple[str, str]:
    """Write a snapshot onto a real file system of its own; return what was told and what is left there."""
    assert sys.platform == "linux", "the tiny disk is made with Linux's name spaces"
    command = 'mount -t tmpfs -o "$1" tmpfs "$2" && exec "$3" -c "$4" "$2"'
    done = subprocess.run(
        [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            command,
            "sh",
            options,
            folder,
            sys.executable,
            IN_A_TINY_DISK,
        ],
        cwd=ROOT,
        env=stage_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told, left = done.stdout.strip().rsplit("\n", 1)
    return told, left
