"""What the benchmarks share: order of turns, recall, aims that are reached, Markdown, plots that are pictures."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import pytest

from bench import plots
from bench.all import markdown
from bench.report import Report, in_turn
from bench.rivals import AT_RATE, MIEN, Seen, Target, against, recall


def test_ways_take_turns_forth_and_back() -> None:
    assert in_turn(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]


def test_a_face_is_found_by_a_box_that_is_tighter_and_by_no_box_beside_it() -> None:
    faces = [[(100.0, 100.0, 60.0, 80.0), (300.0, 100.0, 60.0, 80.0)], []]
    tight, beside = (108.0, 110.0, 46.0, 60.0), (365.0, 100.0, 60.0, 80.0)
    assert recall([(0, [tight, beside])], faces) == 0.5
    assert recall([(0, [tight, tight])], faces) == 0.5  # a face is found once, however many boxes it has
    assert recall([(0, []), (0, [tight]), (1, [])], faces) == 0.25
    assert math.isnan(recall([(1, [])], faces))


def test_an_aim_is_reached_with_frames_faces_and_latency_on_the_pictures_that_both_saw() -> None:
    face = (100.0, 100.0, 60.0, 80.0)
    faces = [[face], [face], [face]]
    other = Seen(rates=[10.0], times_ms=[100.0], frames=[(0, [face])], cpu_s=1.0)

    def compared(mien: Seen, target: Target | None) -> object:
        return against({MIEN: mien, "loop": other, AT_RATE: mien}, "loop", target, faces)["reached"]

    good = Seen(rates=[50.0], times_ms=[20.0], frames=[(0, [face]), (1, []), (2, [])], cpu_s=1.0)
    assert compared(good, Target(4.0)) == "yes"  # the others have not looked at the pictures without a box
    assert compared(good, Target(4.0, more=True)) == "no: recall"
    assert compared(good, None) is None
    bad = Seen(rates=[30.0], times_ms=[120.0], frames=[(0, []), (1, [face])], cpu_s=1.0)
    assert compared(bad, Target(4.0)) == "no: frames, recall, p95"


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
