from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import threading
import time

from rich.console import Console

from common import livetable
from common.livetable import LiveTable
from common.messages import CameraState, Correction, Identity, Message, Result, Stats
from common.news import NewsWriter
from common.settings import Config
from tests.conftest import wait_until
from tests.showing import face, five, result

BOX = (10.0, 10.0, 50.0, 50.0)


class Table:
    """A live table with a clock that the test moves."""

    def __init__(self, *cameras: str) -> None:
        self.now = time.monotonic() + 10
        self.table = LiveTable(Console(file=io.StringIO(), width=110), cameras or ("cam0",))

    def tell(self, message: Message, *, seconds: float = 0.0) -> None:
        self.now += seconds
        self.table.update(f"{message.kind}.x", message, self.now)

    def see(self, shown: Result, seconds: float = 1.0) -> None:
        """See this for a while, at 30 results a second."""
        for _ in range(round(seconds * 30)):
            self.tell(shown, seconds=1 / 30)

    def text(self) -> str:
        out = io.StringIO()
        Console(file=out, width=110, color_system=None).print(self.table.render(self.now))
        return out.getvalue()

    def lines(self) -> list[str]:
        return self.table.lines(self.now)


def state(word: str, ago: float = 0.0, reason: str | None = None) -> CameraState:
    fields = {"from": "capture.test.1", "camera": "cam0", "state": word, "since": time.time() - ago, "reason": reason}
    return CameraState.model_validate(fields)


# --- the table ---


def test_every_face_has_a_row_with_who_how_sure_and_since_when() -> None:
    table = Table()
    table.see(five(), 5.5)
    text = table.text()
    rows = {match[1]: match[0] for match in re.findall(r"(cam0 .*?(#\d).*)", text)}
    assert re.search(r"cam0 +Renée Müller  #1 +■ happy +━+ +70 % +0:05", rows["#1"])
    assert "张伟" in rows["#3"] and "■ surprised" in rows["#3"]
    assert "unknown" in rows["#4"] and "turned away" in rows["#4"] and "%" not in rows["#4"]
    assert rows["#5"].count("…") == 2


def test_the_top_line_tells_rate_latency_faces_and_losses() -> None:
    table = Table()
    table.see(five(), 3)
    stats = {"from": "a", "stage": "conductor", "in_s": 1.0, "out_s": 1.0, "dropped": 12, "p50_ms": 1.0, "p95_ms": 1.0}
    table.tell(Stats.model_validate(stats | {"rss_mb": 1.0, "cpu": 0.1, "state": "running"}))
    assert table.text().split("\n")[0].split("  ") == ["cam0", "30/s", "42 ms", "5 faces", "12 dropped"]


def test_a_camera_that_is_offline_is_told_and_shows_nobody() -> None:
    table = Table()
    table.see(five(), 2)
    table.tell(state("offline", 12.2, "the webcam was unplugged"))
    assert table.text().strip() == "cam0  offline for 0:12 – the webcam was unplugged"


def test_results_that_stopped_are_not_shown_as_live() -> None:
    table = Table()
    table.see(five(), 2)
    table.now += 3
    assert table.text().strip() == "cam0  picture stalled for 3 s"


def test_a_paused_camera_is_called_paused_and_not_stalled() -> None:
    table = Table()
    table.see(five(), 2)
    table.tell(state("online").model_copy(update={"paused": True}), seconds=3)
    assert table.text().strip().startswith("cam0  paused")


def test_a_camera_without_results_waits() -> None:
    assert Table("cam0", "cam1").text().split("\n")[:2] == [
        "cam0  waiting for pictures…",
        "cam1  waiting for pictures…",
    ]


def test_a_face_that_left_has_no_row_any_more() -> None:
    table = Table()
    table.see(five(), 1)
    table.see(result(640, 360, (face(2, BOX, "sad"),)), 1.5)
    text = table.text()
    assert "#2" in text and "#1" not in text and "1 face " in text


def test_a_corrected_name_is_shown_at_once() -> None:
    table = Table()
    table.see(result(640, 360, (face(2, BOX, "sad"),)))
    known = Identity(status="known", name="Renée", person=1)
    was = Identity(status="unknown")
    table.tell(Correction(sender="c", camera="cam0", run=1, track=2, from_seq=1, was=was, now=known))
    assert "Renée" in table.text()


# --- plain lines ---


def test_plain_lines_tell_what_changed_and_nothing_twice() -> None:
    table = Table()
    sad = result(640, 360, (face(2, BOX, "sad"),))
    table.tell(state("online"))
    table.see(sad)
    assert table.lines() == ["cam0: online", "cam0: track 2: unknown, sad 70 %"]
    table.see(sad, 5)
    assert table.lines() == []
    table.see(result(640, 360, (face(2, BOX, "happy", name="Renée"),)))
    assert table.lines() == ["cam0: track 2: Renée, happy 70 %"]
    table.see(result(640, 360), 2)
    assert table.lines() == ["cam0: Renée (track 2) has left"]


def test_plain_lines_leave_out_what_passes() -> None:
    table = Table()
    table.see(result(640, 360, (face(2, BOX, "sad"),)))
    table.lines()
    table.see(result(640, 360, (face(2, BOX, "happy"),)), 0.3)
    assert table.lines() == []
    table.see(result(640, 360, (face(2, BOX, "sad"),)), 0.3)
    table.now += 0.1
    assert table.lines() == []


def test_a_face_that_never_got_an_answer_is_not_told() -> None:
    table = Table()
    table.see(result(640, 360, (face(2, BOX, identity="pending"),)), 3)
    assert table.lines() == ["cam0: online"]


def test_a_crowd_makes_a_few_lines_a_second_and_forgets_none() -> None:
    table = Table()
    crowd = result(640, 360, tuple(face(track, BOX, "sad") for track in range(20)))
    told: list[str] = []
    for step in range(80):
        table.see(crowd, 0.1)
        told += table.lines()
        assert len(told) <= livetable.LINES_S * (2 + step / 10)
    assert len([line for line in told if "sad" in line]) == 20


# --- on the bus ---


def test_without_a_terminal_it_writes_plain_lines(config: Config, bus: subprocess.Popen[bytes]) -> None:
    out = io.StringIO()
    with _running(config, out) as feed:
        wait_until(lambda: feed(five()) or "Renée Müller, happy 70 %" in out.getvalue(), what="a line about Renée")
    assert "\x1b" not in out.getvalue() and "cam0: online" in out.getvalue().split("\n")


def test_on_a_terminal_it_draws_a_table_and_takes_it_away_again(config: Config, bus: subprocess.Popen[bytes]) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()
    reading = threading.Thread(target=_drain, args=(ours, shown), daemon=True)
    reading.start()
    with open(theirs, "w", encoding="utf-8") as out:
        with _running(config, out) as feed:
            wait_until(lambda: feed(five()) or "Renée Müller".encode() in shown, what="a row about Renée")
            assert b"\x1b[" in shown  # it draws over itself
        wait_until(lambda: shown.rstrip().endswith((b"\x1b[2K", b"\x1b[?25h")), what="the table is taken away")
    reading.join(5)
    os.close(ours)


def test_without_pictures_what_comes_is_shown_soon_and_what_repeats_is_no_news() -> None:
    table = Table()
    assert table.table.quiet(table.now)
    assert table.table.update("camera.cam0", state("offline", reason="no route"), table.now)
    assert not table.table.update("camera.cam0", state("offline", ago=1.0, reason="no route"), table.now)
    assert table.table.update("camera.cam0", state("offline", reason="refused"), table.now)
    assert table.table.update("results.cam0", five(), table.now)
    assert not table.table.quiet(table.now + livetable.QUIET_S) and table.table.quiet(table.now + 2.1)


class _running:
    """The live table in a thread, and a function that publishes results."""

    def __init__(self, config: Config, out: io.TextIOBase) -> None:
        self.stop = threading.Event()
        self.writer = NewsWriter(config, "conductor.test.1")
        self.thread = threading.Thread(target=livetable.run, args=(config, self.stop, out))

    def __enter__(self):  # type: ignore[no-untyped-def]
        self.thread.start()
        return lambda shown: self.writer.publish(shown, shown.camera)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(5)
        self.writer.close()
        assert not self.thread.is_alive()


def _drain(handle: int, shown: bytearray) -> None:
    while True:
        try:
            data = os.read(handle, 4096)
        except OSError:
            return
        if not data:
            return
        shown += data
