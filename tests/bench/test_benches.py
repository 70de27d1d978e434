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
            [
                "--seconds",
                "0.1",
                "--rounds",
                "1",
                "--ways",
                "mien,bare,bare-copy,shared",
                "--sizes",
                "640x360,1920x1080",
            ],
            ["640x360", "1920x1080", "shared memory", "lowest", "ratio", "shared_ratio"],
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
            ["share of what models", "extra latency", "the models alone", "expression", "camera and viewer"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("rivals", ["--seconds", "1", "--rounds", "1", "--only", "loop"]),
            ["one face", "crowd", "recall", "times_the_frames", "embedded_a_frame", "dlib"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("growth", ["faces", "--seconds", "0.5"]),
            ["faces in a frame", "assessed", "cpu_ms_a_face"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("growth", ["history"]),
            ["days of history", "a day by the minute, old", "of today (seconds)", "of an old day (minutes)"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("growth", ["pipelines", "--seconds", "0.3"]),
            ["cameras of the whole pipeline", "capture", "memory_mb"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("quiet", ["--empty", "12", "--seconds", "2", "--returns", "1"]),
            ["a curtain sways", "paused", "launch", "somebody comes", "noticed_after_ms", "median"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("detector", ["every", "close", "--quick", "--rounds", "1"]),
            ["every 1", "ids_that_moved", "the crowd scene", "close_looks"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("networks", ["--rounds", "1"]),
            ["expression, one thread", "mirror image", "a face once", "against_mien", "mini-XCEPTION"],
            marks=pytest.mark.slow,
        ),
        ("conductor", ["--frames", "60"], ["processor time, ms", "faces", "cpu_ms"]),
        ("cameras", ["--cameras", "1,2", "--seconds", "0.3"], ["conductor_cores", "p99_ms", "least_of_most"]),
        pytest.param(*("models", ["memory"]), ["PSS", "detector", "identity"], marks=pytest.mark.slow),
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
