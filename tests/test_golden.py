"""The same input gives the same output: whatever the workers, and when one is killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from common.expressions import EXPRESSIONS
from common.media import sample
from common.tables import COLUMNS
from tests.analysing import Analysing, Rows, analysed, clip, read_rows

ONE_EACH = "detection=1,identity=1,expression=1"
FOUR = "detection=2,identity=1,expression=1"
FACE_MARK = ("x", "y", "width", "height", "score", "expression", "reason", *EXPRESSIONS)


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The two-second clip of the man, analysed by one worker of each kind."""
    return analysed(sample("man.mp4"), tmp_path_factory.mktemp("man") / "one.jsonl", "--workers", ONE_EACH)


def test_every_frame_is_there_with_its_one_face(man: Rows) -> None:
    assert [row["seq"] for row in man] == list(range(72))
    assert all(list(row) == list(COLUMNS) for row in man)
    assert all(row["analysed"] and row["faces"] == 1 for row in man)
    assert {row["track"] for row in man} == {1}
    assert [row["media_time_s"] for row in man] == pytest.approx([seq / 30 for seq in range(72)], abs=1e-3)


def test_every_face_has_its_own_expression_and_a_name_or_none(man: Rows) -> None:
    assert all(row["identity"] == "unknown" and row["name"] is None for row in man)
    assert all(row["expression"] in ("ok", "cannot_assess") for row in man)
    assessed = [row for row in man if row["expression"] == "ok"]
    assert len(assessed) > 60
    for row in assessed:
        assert row["label"] in EXPRESSIONS
        for prefix in ("", "smoothed_"):
            assert sum(row[f"{prefix}{name}"] for name in EXPRESSIONS) == pytest.approx(1, abs=1e-4)
    assert len({tuple(row[name] for name in EXPRESSIONS) for row in assessed}) > 60  # none carried forward


@pytest.mark.parametrize("workers", [FOUR, "detection=4,identity=2,expression=2"])
def test_more_workers_change_nothing(man: Rows, tmp_path: Path, workers: str) -> None:
    assert analysed(sample("man.mp4"), tmp_path / "more.jsonl", "--workers", workers) == man


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
@pytest.mark.parametrize("victim", ["detection.1", "expression.1"])
def test_a_worker_killed_in_the_middle_changes_nothing(man: Rows, tmp_path: Path, victim: str) -> None:
    out = tmp_path / "killed.jsonl"
    with Analysing(sample("man.mp4"), out, "--workers", FOUR, "--verbose") as run:
        run.await_rows(15)
        os.kill(run.pid_of(victim), signal.SIGKILL)
        assert run.wait() == 0, run.said()
        assert f"{victim} was killed by SIGKILL: starting it again" in run.said()
    assert read_rows(out) == man


def test_the_woman_is_one_person_from_start_to_end(tmp_path: Path) -> None:
    """Sad, crying behind her hand, surprised, happy: always the same track. Every fourth frame of the whole clip."""
    short = clip(sample("woman.mp4"), tmp_path / "woman.mp4", "-vf", "fps=6")
    rows = analysed(short, tmp_path / "woman.jsonl")
    assert {row["track"] for row in rows if row["faces"]} == {1}
    assert all(row["faces"] <= 1 for row in rows)
    assert sum(row["faces"] for row in rows) > 0.9 * len(rows)
    assert [row["seq"] for row in rows] == list(range(len(rows)))


def test_pictures_of_a_folder_are_independent(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = {
        "a.jpg": "portrait_happy.jpg", "b.jpg": "five_people.jpg", "c.jpg": "obama.jpg", "d.jpg": "portrait_happy.jpg",
    }  # fmt: skip
    for name, origin in reversed(names.items()):
        shutil.copy(sample(origin), folder / name)
    (folder / "notes.txt").write_text("not a picture")
    rows = analysed(folder, tmp_path / "pictures.jsonl")
    by_file = {name: [row for row in rows if row["file"] == name] for name in names}
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    assert {row["file"]: row["seq"] for row in rows} == {name: seq for seq, name in enumerate(names)}
    assert [len(found) for found in by_file.values()] == [1, 5, 1, 1]
    assert all(row["identity"] == "unknown" for row in rows)
    assert all(row["expression"] in ("ok", "cannot_assess") for row in rows)
    assert len({row["track"] for row in rows}) == len(rows)  # nobody is taken for somebody of another picture
    first, again = by_file["a.jpg"][0], by_file["d.jpg"][0]
    assert {mark: first[mark] for mark in FACE_MARK} == {mark: again[mark] for mark in FACE_MARK}
    for row in (row for row in rows if row["expression"] == "ok"):  # nothing was smoothed over pictures
        own, smoothed = ([row[f"{prefix}{name}"] for name in EXPRESSIONS] for prefix in ("", "smoothed_"))
        assert smoothed == pytest.approx(own, abs=1e-5)  # the smoother computes in double precision
