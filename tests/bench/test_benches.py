"""Each benchmark runs, in a tiny form, and prints its table. How fast anything is, is not judged here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common import media
from tests.conftest import ROOT, stage_environment


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        (
            "transport",
            ["--seconds", "0.1", "--rounds", "1", "--ways", "mien,bare,shared", "--sizes", "640x360,1920x1080"],
            ["640x360", "1920x1080", "shared memory", "ratio"],
        ),
        ("security", ["--seconds", "0.1", "--rounds", "1"], ["work", "wire", "cpu_ratio"]),
        ("dispatch", ["--seconds", "0.5"], ["10 and 100 ms", "pulled", "push, default queue"]),
        pytest.param(
            *("pipeline", ["--seconds", "4", "--rounds", "1"]),
            ["watched", "conductor", "inference", "total", "precision"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("limit", ["--seconds", "1", "--rounds", "1"]),
            ["share", "extra_p50", "the models alone", "expression", "total"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("rivals", ["--seconds", "1", "--rounds", "1", "--only", "loop"]),
            ["one face", "crowd", "recall", "times_the_frames", "dlib"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("growth", ["faces", "history", "--seconds", "0.5"]),
            ["faces in a frame", "days of history", "a day by the minute, old"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("alerts", ["flicker", "cost", "--seconds", "2"]),
            ["an hour of flicker", "history", "memory_mb"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("bus", ["--subscribers", "10", "--seconds", "0.2", "--rounds", "1", "--minutes", "0.005"]),
            ["cost", "beside somebody who stalls", "growth"],
            marks=pytest.mark.slow,
        ),
        ("soak", ["--hours", "0.004", "--workers", "detection=1"], ["growth_mb_h", "conductor", "drift_ms_h"]),
        ("history", ["--people", "2", "--days", "6"], ["a day by the minute, old", "mb_a_person_and_year"]),
        pytest.param(
            *("dashboard", ["--seconds", "2", "--rounds", "1", "--browsers", "2"]),
            ["glass to glass", "2 and a stalled one"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_benchmark_prints_its_table(name: str, arguments: list[str], words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), *arguments],
        env=stage_environment(MIEN_DATA_DIR=str(media.data_dir())),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(word in done.stdout for word in words), done.stdout
    assert "processor" in done.stdout and "cores" in done.stdout  # a figure without its machine says nothing
