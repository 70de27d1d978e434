"""A store on a real PostgreSQL server: what is moved there arrives, and while it is away nothing is lost."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psycopg
import pytest

from common import alert_store, history_store, history_upkeep, people, postgres
from common.config import ConfigError, load
from common.history_gather import Batch, TrackRows
from common.history_store import Subject
from common.keeper import Keeper
from common.ledger import Ledger, LedgerAway, LedgerError
from common.place import Place
from common.recall import Sighting, UnknownLook
from common.settings import Config
from common.store import Store
from tests.common.test_history import DAY, SADNESS, packed
from tests.conftest import ROOT, stage_environment, wait_until
from tests.databases import Server
from tests.people import face_of, reference


def on(server: Server, tmp_path: Path) -> Config:
    url = server.database()
    return load(overrides={"storage": {"data_dir": tmp_path / "data", "url": url}}, environment={})


def filled(data_dir: Path) -> None:
    """Something in every part of a store; the last person has gone again."""
    with Store(data_dir) as store, Ledger(data_dir) as ledger:
        for number, name in enumerate(("Ada", "Ben", "Cy")):
            people.add(store, name, [reference(number), reference(number, 1)], notes=f"note on {name} – 名\0")
        with store.write() as connection:
            connection.exec_driver_sql("DELETE FROM person WHERE name = 'Cy'")
        with ledger.write() as connection:
            seconds = [(DAY + i, packed(SADNESS)) for i in range(12_000)]
            history_upkeep.write(
                connection, Batch(rows=[TrackRows(track=2**40, camera="w", owner=(1, None), seconds=seconds)])
            )
            values = {
                "rule": "r",
                "about": "expression",
                "camera": "w",
                "person_id": 1,
                "began_at": 1.5,
                "opened_at": 2,
                "text": "x",
            }
            values |= {"assessed_s": 0, "unassessed_s": 0.0}
            episode = alert_store.save(connection, None, values)
            for event in ("opened", "closed"):
                alert_store.add_step(connection, episode, event, 3.0, None, "{}")
    written = Keeper(load(overrides={"storage": {"data_dir": data_dir}}, environment={}), "test")
    written.open()
    written.write([look(7), Sighting(track=9, camera="w", person=None, unknown=7, begin_at=1.0, end_at=2.0)])
    written.close()


def look(number: int) -> UnknownLook:
    return UnknownLook(number=number, embedding=face_of(number), weight=1.0, first_at=1.0, last_at=time.time(), looks=1)


def move(data_dir: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch.py"), "store", "move", "--to", url, "--data-dir", str(data_dir)]
    command += ["--run-dir", str(data_dir / "run")]
    return subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=120)


def test_a_store_moves_to_a_server_whole_and_still_sealed(shared_server: Server, tmp_path: Path) -> None:
    filled(tmp_path)
    url = shared_server.database()
    with sqlite3.connect(tmp_path / "mien.db") as old:
        sealed = old.execute("SELECT embedding, crop FROM reference ORDER BY id").fetchall()
    old.close()
    done = move(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert "history_second: 12000" in done.stdout and 'url = "postgresql://' in done.stdout
    with psycopg.connect(url) as raw:
        assert raw.execute("SELECT embedding, crop FROM reference ORDER BY id").fetchall() == sealed
    with Store(Place(tmp_path, url)) as store, Ledger(Place(tmp_path, url)) as ledger:
        assert [person.notes for person in people.everybody(store)] == ["note on Ada – 名", "note on Ben – 名"]
        assert (people.references_of(store, "Ada")[0][1].embedding == reference(0).embedding).all()
        assert [one.number for one in people.unknown_people(store)] == [7]
        assert len(history_store.steps(ledger, Subject(person=1), DAY, DAY + 20_000)) == 12_000
        assert alert_store.last_serial(ledger) == 2
        assert people.add(store, "Dee", [reference(5)]).id == 4  # number 3 was somebody's
        assert people.audit_log(store)[-2].did == "moved"
    again = move(tmp_path, url)
    assert again.returncode == 2 and "is not empty" in again.stderr


def test_the_address_that_a_move_prints_can_be_used_as_it_is(shared_server: Server, tmp_path: Path) -> None:
    filled(tmp_path)
    url = shared_server.database()
    done = move(tmp_path, f"{url}?sslmode=prefer&password=secret&application_name=ward")
    assert done.returncode == 0 and "secret" not in done.stdout + done.stderr
    [told] = [line for line in done.stdout.splitlines() if line.startswith("url = ")]
    assert told == f'url = "{url}?sslmode=prefer&application_name=ward"'
    config = load(overrides=tomllib.loads(f"[storage]\n{told}"), environment={})
    with Store(Place(tmp_path, config.storage.url)) as store:
        assert [person.name for person in people.everybody(store)] == ["Ada", "Ben"]


def test_without_the_servers_driver_a_move_says_what_to_install(tmp_path: Path) -> None:
    words = ["store", "move", "--to", "postgresql://mien@127.0.0.1:1/ward", "--data-dir", str(tmp_path)]
    program = f"import sys; sys.modules['psycopg'] = None; import launch; sys.exit(launch.main({words!r}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=stage_environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "pip install 'mien[postgres]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_cannot_be_moved_is_said(shared_server: Server, tmp_path: Path) -> None:
    nothing = move(tmp_path, shared_server.database())
    assert nothing.returncode == 2 and "there is no store" in nothing.stderr
    filled(tmp_path)
    nobody = move(tmp_path, "postgresql://mien@127.0.0.1:1/ward")
    assert nobody.returncode == 2 and "refused" in nobody.stderr and len(nobody.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://a@127.0.0.1/b", "PostgreSQL"),
        ("postgresql://a@127.0.0.1", "PostgreSQL"),
        ("postgresql://a:secret@ward.example/b", "another machine"),
        ("postgresql://a:secret@127.0.0.1/b?host=ward.example", "another machine"),
        ("postgresql://a:secret/word@127.0.0.1/b", "no address of a database"),
        ("postgresql://a:p@secret@ward.example/b", "another machine"),
        ("postgresql://ward.example/b?password=secret", "another machine"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_its_password_not_shown(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        load(overrides={"storage": {"url": url}}, environment={})
    assert "secret" not in str(refused.value)


def test_a_server_that_comes_back_finds_everything(
    own_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = on(own_server, tmp_path)
    kept = Keeper(config, "test")
    kept.open()
    with Store(config.storage.place) as store, Ledger(config.storage.place, busy_ms=500) as ledger:
        people.add(store, "Ada", [reference(1)])
        history_store.add_note(ledger, Subject(person=1), 1.0, "before", "Kim")
        with caplog.at_level(logging.WARNING):
            own_server.stop()
            kept.write([look(7), Sighting(track=9, camera="w", person=1, unknown=None, begin_at=1.0, end_at=2.0)])
            wait_until(lambda: caplog.messages, 10, "it is said")
            with pytest.raises(LedgerError, match="cannot be written"):
                history_store.add_note(ledger, Subject(person=1), 1.0, "lost", "Kim")
            own_server.start()
            wait_until(lambda: people.sightings_of(store, 1), 20, "what waited is written")
        assert [one.number for one in people.unknown_people(store)] == [7]
        assert all(len(line.splitlines()) == 1 for line in caplog.messages) and len(caplog.messages) <= 3
        wait_until(lambda: answers(ledger), 10, "the ledger, which asks once a second, finds it, too")
        history_store.add_note(ledger, Subject(person=1), 1.0, "after", "Kim")
        assert [note.text for note in history_store.notes(ledger, 0, 10)] == ["before", "after"]
        own_server.stop()
        own_server.start()  # unnoticed: nothing was under way
        history_store.add_note(ledger, Subject(person=1), 1.0, "and again", "Kim")
    kept.close()


def test_a_server_that_is_frozen_is_not_waited_for(own_server: Server, tmp_path: Path) -> None:
    config = on(own_server, tmp_path)
    Store(config.storage.place).close()
    with Ledger(config.storage.place) as ledger:
        ledger.close()
        ledger._line = postgres.Line(config.storage.place.url or "", 500, patience_s=0.5)
        assert ledger.generation() == 0
        own_server.pause(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(LedgerError, match="cannot be read"):
                ledger.generation()
            assert time.monotonic() - began < 10
        finally:
            own_server.pause(signal.SIGCONT)
        wait_until(lambda: answers(ledger), 20, "it is used again")


def test_a_stage_waits_for_a_frozen_server_for_less_long_than_the_supervisor_for_a_stage(
    own_server: Server, tmp_path: Path
) -> None:
    config = on(own_server, tmp_path)
    Store(config.storage.place).close()
    name = (config.storage.url or "").rpartition("/")[2]
    several = f"postgresql://mien@/{name}?host=127.0.0.1,localhost,127.0.0.1&port={own_server.port}"
    with Ledger(Place(tmp_path / "data", several), busy_ms=500) as ledger:
        own_server.pause(signal.SIGSTOP)
        try:
            for _ in range(2):  # once with a connection, once without
                began = time.monotonic()
                with pytest.raises(LedgerError):
                    ledger.generation()
                with pytest.raises(LedgerAway):  # whatever else the same turn asks
                    history_store.add_note(ledger, Subject(person=1), 1.0, "lost", "Kim")
                assert time.monotonic() - began < 0.7 * config.supervision.heartbeat_timeout_s
                wait_until(lambda at=began: time.monotonic() - at > 4, 10, "it is asked again")  # type: ignore[misc]
        finally:
            own_server.pause(signal.SIGCONT)
        wait_until(lambda: answers(ledger), 20, "it is used again")


def answers(ledger: Ledger) -> bool:
    try:
        return ledger.generation() >= 0
    except LedgerError:
        return False
