"""Status shows each process as its supervisor and it itself last told, and marks who has gone silent."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from rich.console import Console

from common.messages import Stats
from common.news import NewsWriter
from common.settings import Config
from common.status import Board, show
from tests.conftest import ROOT, stage_environment


def stats(sender: str, stage: str, **changes: Any) -> Stats:
    fields = {
        "from": sender, "stage": stage, "in_s": 30.0, "out_s": 29.5, "dropped": 7, "p50_ms": 12.3, "p95_ms": 45.6,
        "rss_mb": 120.0, "cpu": 0.5, "state": "running",
    }  # fmt: skip
    return Stats.model_validate(fields | changes)


def supervisor(**children: tuple[str, int, int]) -> Stats:
    detail: dict[str, float | str] = {}
    for name, (state, pid, restarts) in children.items():
        name = name.replace("_", ".")
        detail |= {f"{name}.state": state, f"{name}.pid": float(pid), f"{name}.restarts": float(restarts)}
    return stats("supervisor.ward.1", "supervisor", detail=detail)


def printed(board: Board, now: float) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(board.table(now))
    return out.getvalue()


def test_each_worker_is_shown_under_its_name_with_its_figures() -> None:
    board = Board()
    board.note(stats("detection.ward.10", "detection"), 0.0)
    board.note(supervisor(detection_1=("running", 10, 0), detection_2=("loading", 11, 0)), 0.1)
    rows = {row.name: row for row in board.rows(0.2)}
    assert list(rows) == ["supervisor", "detection.1", "detection.2"]
    assert rows["detection.1"].state == "running" and rows["detection.2"].state == "loading"
    [line] = [line for line in printed(board, 0.2).splitlines() if line.startswith("detection.1")]
    assert line.split() == ["detection.1", "running", "30.0", "29.5", "7", "12.3", "45.6", "120", "50", "%", "0"]


def test_a_restarted_worker_shows_its_restarts_and_its_old_self_is_gone() -> None:
    board = Board()
    board.note(stats("detection.ward.10", "detection"), 0.0)
    board.note(supervisor(detection_1=("running", 10, 0)), 0.1)
    board.note(supervisor(detection_1=("waiting", 0, 1)), 1.1)
    assert [row.state for row in board.rows(1.2)][1] == "waiting to be started again"
    board.note(stats("detection.ward.12", "detection"), 2.0)
    board.note(supervisor(detection_1=("running", 12, 1)), 2.1)
    assert [(row.name, row.state, row.restarts) for row in board.rows(2.2)] == [
        ("supervisor", "running", None),
        ("detection.1", "running", 1),
    ]


def test_who_says_nothing_for_five_seconds_is_marked_and_has_no_figures() -> None:
    board = Board()
    board.note(stats("detection.ward.10", "detection"), 0.0)
    board.note(supervisor(detection_1=("running", 10, 0)), 6.0)
    row = board.rows(6.0)[1]
    assert row.state == "silent for 6 s" and "red" in row.style
    assert "29.5" not in printed(board, 6.0).splitlines()[2]


def test_failed_processes_are_said_to_have_failed() -> None:
    board = Board()
    board.note(supervisor(capture_cam0=("failed", 0, 8), bus=("running", 3, 0)), 0.0)
    assert {row.name: row.state for row in board.rows(0.0)}["capture.cam0"] == "FAILED"


def test_who_has_waited_for_the_store_for_long_is_not_well_until_nothing_waits_any_more() -> None:
    board = Board()
    board.note(supervisor(history=("running", 10, 0), alerts=("running", 11, 0)), 0.0)
    for second in range(30):
        waiting = 200.0 if 5 <= second <= 20 else 0.0
        board.note(stats("history.ward.10", "history", detail={"waiting": waiting, "lost": 0.0}), float(second))
        states = {row.name: (row.state, bool(row.style)) for row in board.rows(second + 0.5)}
        told = ("the store cannot be written: 200 entries wait for it, the first for 12 s", True)
        assert states["history"] == (told if second == 16 else states["history"])
        assert states["history"][1] == (15 <= second <= 20), second
        assert states["alerts"] == ("running", False)
        board.note(supervisor(history=("running", 10, 0), alerts=("running", 11, 0)), second + 0.9)
    # Whoever has just begun to listen takes the stage's own word for it; a supervisor need not be there.
    board = Board()
    board.note(stats("alerts.ward.11", "alerts", detail={"waiting": 1.0, "waiting_s": 14.0}), 100.0)
    [row] = board.rows(101.0)
    assert row.style and row.state == "the store cannot be written: 1 entries wait for it, the first for 15 s"


def test_a_worker_started_by_hand_is_shown_by_its_instance_and_forgotten_when_long_gone() -> None:
    board = Board()
    board.note(supervisor(bus=("running", 3, 0)), 0.0)
    board.note(stats("expression.elsewhere.77", "expression", bad_messages=2), 0.0)
    assert [row.name for row in board.rows(0.0)] == ["supervisor", "bus", "expression.elsewhere.77"]
    board.note(supervisor(bus=("running", 3, 0)), 31.0)
    assert [row.name for row in board.rows(31.0)] == ["supervisor", "bus"]


def test_two_machines_with_the_same_process_numbers_are_told_apart() -> None:
    board = Board()
    board.note(supervisor(detection_1=("running", 10, 0)), 0.0)
    board.note(stats("detection.ward.10", "detection"), 0.0)
    board.note(stats("detection.attic.10", "detection"), 0.0)
    assert [row.name for row in board.rows(0.0)] == ["supervisor", "detection.1", "detection.attic.10"]


def test_two_launches_on_one_machine_keep_their_own() -> None:
    board, now = Board(), time.monotonic()
    for number, pid in ((1, 10), (2, 20)):
        board.note(stats(f"detection.ward.{pid}", "detection", in_s=float(pid)), now)
        children = supervisor(detection_1=("running", pid, 0))
        board.note(children.model_copy(update={"sender": f"supervisor.ward.{number}"}), now)
    shown = [(row.name, row.stats and row.stats.in_s) for row in board.rows(now) if row.name != "supervisor"]
    assert shown == [("detection.1", 10.0), ("detection.1", 20.0)]
    assert board.complete


def test_strange_senders_and_details_do_no_harm() -> None:
    board = Board()
    board.note(stats("x", "supervisor", detail={"a.state": 1.0, "a.pid": "no number", "a.restarts": "many"}), 0.0)
    board.note(stats("detection.h." + "9" * 40, "detection"), 0.0)
    assert printed(board, 0.0)


def test_once_prints_one_table_and_ends(
    bus: subprocess.Popen[bytes], config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()

    def publish() -> None:
        writer = NewsWriter(config, "supervisor.ward.1")
        while not stop.wait(0.1):
            writer.publish(supervisor(detection_1=("failed", 10, 3)), "supervisor")
        writer.close()

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        assert show(config, once=True) == 0
    finally:
        stop.set()
        thread.join()
    out = capsys.readouterr().out
    assert "detection.1" in out and "FAILED" in out and out.count("process ") == 1


def test_nobody_there_is_said_within_a_few_seconds(config: Config) -> None:
    command = [sys.executable, str(ROOT / "launch.py"), "status", "--once", "--run-dir", str(config.run_dir)]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.strip() == f"no Mien is running here (news at {config.endpoints.news_out})"
