"""What the benchmarks share: order of turns, recall whatever a box's size, Markdown, plots that are pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from bench import plots
from bench.all import markdown
from bench.report import Report, in_turn
from bench.rivals import recall
from common.crowd import FaceTruth, FrameTruth


def test_ways_take_turns_forth_and_back() -> None:
    assert in_turn(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]


def test_a_face_is_found_by_a_box_that_is_tighter_and_by_no_box_beside_it() -> None:
    def face(person: int, x: float) -> FaceTruth:
        box = (x, 100.0, 60.0, 80.0)
        return FaceTruth(person, str(person), box, 80.0, 1.0, hidden=False, turned=False)

    truth = [FrameTruth(0, 0.0, (face(1, 100.0), face(2, 300.0)))]
    tight, beside = (112.0, 115.0, 40.0, 40.0), (365.0, 100.0, 60.0, 80.0)
    assert recall([(0, [tight, beside])], truth) == (0.5, 1.0)
    assert recall([(0, [tight, tight])], truth) == (0.5, 1.0)  # a face is found once, however many boxes it has
    assert recall([(0, []), (0, [tight])], None) == (0.5, 0.5)


def test_tables_become_markdown_with_their_machine() -> None:
    report = Report("name", "what it is", machine={"processor": "one of many"})
    report.add("table", way="Mien", frames_s=123.456, ratio=None)
    text = markdown(
        {"name": "name", "what": "what it is", "machine": report.machine, "settings": {}, "tables": report.tables,
         "notes": ["a note"]},
        "bench/name.py",
    )  # fmt: skip
    assert "| Mien | 123 | – |" in text.splitlines()
    assert "processor one of many" in text and "`python bench/name.py`" in text and "a note" in text


@pytest.mark.parametrize("log", [False, True])
def test_a_plot_is_a_picture(tmp_path: Path, log: bool) -> None:
    for number, said in enumerate(
        (
            plots.lines(tmp_path / "0.png", "t", {"a": [(1, 2), (10, 3)], "b": [(1, 4)]}, x="x", y="y", log_x=log),
            plots.bars(tmp_path / "1.png", "t", {"g": {"a": 1.0, "b": 20.0}, "h": {"a": 3.0}}, y="y", log_y=log),
        )
    ):
        assert str(tmp_path) in said
        picture = cv2.imread(str(tmp_path / f"{number}.png"))
        assert picture is not None and picture.std() > 5
