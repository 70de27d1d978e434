"""No store, a wrong clock, no descriptors left: what can be kept is kept, the rest is said."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest

from common.messages import Alert
from common.news import NewsReader
from common.page import access
from common.settings import Config
from common.store import Store
from tests.chaos.faults import NAME, Victim, data_dir, patience
from tests.chaos.stored import check_alerts
from tests.receivers import WebServer
from tests.servers import need


def rows(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        return connection.execute(sql).fetchall()


def seconds(database: Path) -> list[int]:
    """The seconds that history has of the known person, in order."""
    sql = (
        "SELECT second FROM history_second s JOIN history_track t ON t.track = s.track "
        "WHERE t.person_id IS NOT NULL ORDER BY second"
    )
    return [row[0] for row in rows(database, sql)]


@pytest.mark.timeout(300)
def test_locked_squeezed_and_with_a_wrong_clock_it_goes_on_and_writes_down_what_waited(
    config: Config, tmp_path: Path
) -> None:
    database = data_dir(config) / "mien.db"
    offset = tmp_path / "clock"
    offset.write_bytes(struct.pack("d", 0.0))
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    few = {"restarts": 2}
    with Victim(config, "--workers", "detection=1", faults={"CLOCK__ALL": str(offset)}, supervision=few) as mien:
        locked(mien, holder, database)
        written_late(mien, database)
        squeezed(mien)
        not_started(mien)
        clock_set(mien, database, offset)
        mien.quiet()


def locked(mien: Victim, holder: sqlite3.Connection, database: Path) -> None:
    """Another program has the database for itself when all of it starts."""
    mien.until(lambda: (f := mien.face()) is not None and f.expression.label, "it works without its store", 120)
    face = mien.face()
    assert face is not None and face.identity.name is None
    for text in ("nobody has a name", "alerts are shown, but not kept", "seconds of history wait"):
        assert "locked" in mien.until_said(text)
    holder.execute("ROLLBACK")
    holder.close()
    mien.until_known(30)
    mien.until_said("seconds that waited are written now")
    mien.until(lambda: rows(database, "SELECT id FROM episode WHERE closed_at IS NULL"), "the episode is kept", 60)


def written_late(mien: Victim, database: Path) -> None:
    """Another program keeps everybody from writing for a while: what is seen meanwhile is written afterwards."""
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        began = time.time()
        mien.until(lambda: time.time() > began + 3, "time passes")
        mien.until_known()
        ended = time.time()
        writer.execute("ROLLBACK")
    expected = set(range(int(began) + 1, int(ended)))
    mien.until(lambda: len(expected & set(seconds(database))) >= len(expected) - 1, "the seconds of that time", 20)


def squeezed(mien: Victim) -> None:
    """No process has a descriptor left, and twenty programs want to connect."""
    before = mien.pids()
    limits = {}
    for pid in before.values():
        if pid:
            limits[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, limits[pid][1]))
    readers = [NewsReader(mien.config, ("results.",)) for _ in range(20)]
    try:
        mien.until_known()
        mien.fresh_results(20)
    finally:
        for pid, limit in limits.items():
            if psutil.pid_exists(pid):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    for reader in readers:
        mien.until(lambda r=reader: r.read(), "whoever came meanwhile is served, too", 30)
        reader.close()
    assert mien.pids() == before


def not_started(mien: Victim) -> None:
    """A stage dies while launch.py has no descriptor for another: it is started when there is one, however late."""
    before = mien.pids()
    launch, limit = mien.process.pid, resource.prlimit(mien.process.pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{launch}/fd")}
    resource.prlimit(launch, resource.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), limit[1]))
    try:
        os.kill(before["history"], signal.SIGKILL)
        assert "Too many open files" in mien.until_said("history cannot be started yet")
        began = time.monotonic()
        mien.until(lambda: time.monotonic() > began + 4, "that lasts longer than all its restarts together")
    finally:
        resource.prlimit(launch, resource.RLIMIT_NOFILE, limit)
    mien.until_said("mien history runs again")
    mien.until_working("history")
    assert mien.said().count("history cannot be started yet") == 1
    mien.until(lambda: mien.told("history", "state") == "running", "it is told")
    assert {name for name, pid in mien.pids().items() if pid != before[name]} == {"history"}


def clock_set(mien: Victim, database: Path, offset: Path) -> None:
    """Somebody sets the clock, forward, back, and back once more: nothing closes, nothing opens, all goes on."""
    [episode] = rows(database, "SELECT id FROM episode")
    alerts = NewsReader(mien.config, ("alerts.",))
    try:
        for hours in (1, 0, -1):
            with offset.open("r+b") as file:
                file.write(struct.pack("d", hours * 3600.0))
            mien.until_said(f"the clock was set by {'+' if hours == 1 else '-'}3600 s")
            now = time.time() + hours * 3600
            mien.until(lambda n=now: [s for s in seconds(database) if n <= s < n + 600], f"history at {hours:+d} h", 30)
        # A camera that is started again now has a lower number than the one before it.
        mien.hit("capture.cam0", signal.SIGKILL)
        assert mien.until_known().identity.name == NAME
        told = [(m.event, m.rule, m.text) for _, m in alerts.read() if isinstance(m, Alert)]
        assert told == []
        assert rows(database, "SELECT id FROM episode WHERE closed_at IS NULL") == [episode]
    finally:
        alerts.close()


@pytest.mark.timeout(300)
def test_while_nothing_can_be_written_processes_come_and_go_and_no_step_of_an_episode_is_lost_or_told_twice(
    config: Config,
) -> None:
    database = data_dir(config) / "mien.db"
    with Store(database.parent) as store:  # somebody uses the page
        access.add_user(store, "Kim", "operator")
        access.begin(store, access.users(store)[0])
    beat_s = 2.0 * patience()
    with WebServer() as ward, closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with Victim(
            config,
            *("--workers", "detection=1,identity=1,expression=1"),
            notifications={"targets": {"ward": ward.address}, "retry_first_s": 0.1},
            dashboard={"enabled": True},
            supervision={"heartbeat_timeout_s": beat_s},
        ) as mien:
            opened_meanwhile(mien, writer, ward, beat_s)
            killed_meanwhile(mien, writer, ward, beat_s)
            mien.quiet()


def opened_meanwhile(mien: Victim, writer: sqlite3.Connection, ward: WebServer, beat_s: float) -> None:
    """Nothing can be written from the start on: there are names and a page, and what opens is kept as it was."""
    alerts = NewsReader(mien.config, ("alerts.",))
    try:
        mien.until_known(120)
        mien.until(mien.page_answers, "the page is there", 60)
        told: list[Alert] = []
        mien.until(
            lambda: told or told.extend(m for _, m in alerts.read() if isinstance(m, Alert)), "the episode is told", 60
        )
    finally:
        alerts.close()
    before, began = mien.pids(), time.monotonic()
    mien.until(lambda: health(mien) == 503, "it is said that the store cannot be written")
    mien.until(lambda: time.monotonic() > began + 3 * beat_s, "that lasts")
    writer.execute("ROLLBACK")
    sql = "SELECT began_at, opened_at FROM episode"
    [[began_at, opened_at]] = mien.until(lambda: mien.stored(sql), "the episode is kept")
    assert told[0].event == "opened" and not told[0].episode
    assert began_at == told[0].since and opened_at < told[0].at
    mien.until(lambda: health(mien) == 200, "all is well again")
    mien.until(lambda: ward.bodies, "the ward is told")
    assert mien.pids() == before and "no sign of life" not in mien.said()


def killed_meanwhile(mien: Victim, writer: sqlite3.Connection, ward: WebServer, beat_s: float) -> None:
    """Processes die while nothing can be written: their successors have names, a page, and the open episode."""
    check_alerts(mien, ward)
    writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    replaced(mien, "conductor", "dashboard", "alerts")
    mien.until_known()
    mien.until(mien.page_answers, "the page is back", 20)
    mien.until_said("going on with 1 open episodes")
    mien.until(lambda: time.monotonic() > began + 3 * beat_s, "that lasts")
    writer.execute("ROLLBACK")
    mien.until_working("alerts")
    assert mien.stored("SELECT count(*) FROM episode") == [(1,)]
    assert mien.stored("SELECT event FROM episode_step ORDER BY serial") == [("opened",), ("judged",)]
    check_alerts(mien, ward)
    assert len(ward.bodies) == 1


def replaced(mien: Victim, *children: str) -> None:
    """Kill these processes one after the other; when all run again, nobody else has been replaced."""
    before = mien.pids()
    for child in children:
        have = len(mien.said())
        os.kill(before[child], signal.SIGKILL)
        mien.until(lambda c=child, h=have: f"mien {c} runs again" in mien.said()[h:], f"{child} runs again", 60)
    mien.until(lambda: all(mien.told(child, "state") == "running" for child in children), "that is told")
    assert {child for child, pid in mien.pids().items() if pid != before[child]} == set(children)


def health(mien: Victim) -> int:
    """What /healthz answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{mien.config.dashboard.port}/healthz", timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


ROOT = os.geteuid() == 0
INSIDE = ("unshare", "--mount") if ROOT else ("unshare", "--map-root-user", "--mount")
MOUNT = """
cp -a "$0" "$0.copy" && mount -t tmpfs -o size=24m tmpfs "$0" && cp -a "$0.copy/." "$0" && mount -o remount,ro "$0" &&
exec "$@"
"""


def within(mien: Victim, *command: str) -> str:
    """Run a command where the running Mien sees its own file systems; return what it prints."""
    enter = ["nsenter", "-t", str(mien.process.pid), *(() if ROOT else ("-U", "--preserve-credentials")), "-m"]
    return subprocess.run([*enter, *command], check=True, timeout=20, capture_output=True, text=True).stdout


# SQLite resolves /proc/…/root to this test's own file system: whoever asks must be inside.
ASK = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], timeout=5).execute(sys.argv[2]).fetchone()[0])"


def asked(mien: Victim, sql: str) -> str:
    """The one value that a query gives in the running Mien's own file system."""
    return within(mien, sys.executable, "-c", ASK, str(mien.config.storage.data_dir / "mien.db"), sql).strip()


def filled(folder: Path) -> Callable[[], None]:
    """Leave no room in a file system; return what makes room again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler.unlink


@pytest.mark.timeout(240)
def test_a_read_only_and_then_full_disk_costs_what_must_be_written_and_nothing_else(config: Config) -> None:
    need("unshare")
    place = data_dir(config)
    with Victim(config, prefix=(*INSIDE, "sh", "-c", MOUNT, str(place))) as mien:
        # People that can be read are known, although nothing can be written.
        mien.until_known(120)
        mien.until_said("people keep their names")
        mien.until_said("alerts are shown, but not kept")
        inside = Path(f"/proc/{mien.process.pid}/root{place}")
        within(mien, "mount", "-o", "remount,rw", str(place))
        mien.until_said("seconds that waited are written now")
        newest = "SELECT coalesce(max(second), 0) FROM history_second"
        mien.until(lambda: int(asked(mien, newest)) > time.time() - 10, "history is written", 30)
        make_room = filled(inside)
        assert "full" in mien.until_said("cannot be written: database or disk is full")
        mien.until_known()
        replaced(mien, "conductor")
        mien.until_known()
        before = mien.pids()
        make_room()
        freed = time.time()
        mien.until(lambda: int(asked(mien, newest)) > freed, "it is written again", 60)
        assert mien.pids() == before
        assert asked(mien, "PRAGMA integrity_check") == "ok"
        mien.until(
            lambda: asked(mien, "SELECT count(*) FROM episode WHERE closed_at IS NULL") == "1",
            "the episode is kept",
            30,
        )
        mien.quiet()
