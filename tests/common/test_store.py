"""The store keeps what it was given, for whoever has the key, whatever happens to the process that writes."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from common import encryption, people, schema
from common.encryption import Cipher, KeyProblem
from common.place import Place
from common.store import Store, StoreError
from tests.conftest import ROOT, stage_environment, wait_until
from tests.people import face_of, reference


def raw_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("mien.db*")))


def test_the_files_show_no_embedding_and_no_jpeg(tmp_path: Path) -> None:
    kept = reference(1)
    with Store(tmp_path) as store:
        people.add(store, "Ada", [kept])
        assert kept.crop is not None
        plain = raw_bytes(tmp_path)
        assert kept.embedding.tobytes()[:16] not in plain
        assert kept.crop not in plain and b"\xff\xd8\xff" not in plain
        [(_, back)] = people.references_of(store, "Ada")
        np.testing.assert_array_equal(back.embedding, kept.embedding)
        assert back.crop == kept.crop


@pytest.mark.skipif(os.name != "posix", reason="file modes are another thing there")
def test_key_and_store_are_nobody_elses_to_read(tmp_path: Path) -> None:
    Store(tmp_path).close()
    for name in ("mien.key", "mien.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_key_file_that_others_may_read_is_closed(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / "mien.key").chmod(0o644)
    Store(tmp_path).close()
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "mien.key").stat().st_mode) == 0o600


def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "ward? #2 & 50%"
    with Store(folder) as store:
        people.add(store, "Ada", [reference(1)])
    assert (folder / "mien.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    with Store(folder) as store:
        assert [person.name for person in people.everybody(store)] == ["Ada"]


def test_another_key_is_refused_and_the_right_one_still_opens_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(place) as store:
        people.add(store, "Ada", [reference(1)])
    right = (place.data_dir / "mien.key").read_text()
    (place.data_dir / "mien.key").write_text(encryption.written(encryption.new_key()))
    with pytest.raises(StoreError, match="does not fit the store"):
        Store(place)
    (place.data_dir / "mien.key").write_text("not a key")
    with pytest.raises(StoreError, match="holds no key"):
        Store(place)
    (place.data_dir / "mien.key").unlink()
    with pytest.raises(StoreError, match="is missing"):
        Store(place)
    assert not (place.data_dir / "mien.key").exists()  # a new one would only hide the loss
    monkeypatch.setenv("MIEN_KEY", right)
    with Store(place) as store:
        assert people.references_of(store, "Ada")


def test_a_sealed_value_opens_only_for_its_own_purpose() -> None:
    cipher = Cipher(encryption.new_key())
    sealed = cipher.seal(b"secret", "embedding")
    assert cipher.open(sealed, "embedding") == b"secret"
    for other in (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:5], b""):
        with pytest.raises(KeyProblem):
            cipher.open(other, "embedding")
    with pytest.raises(KeyProblem):
        cipher.open(sealed, "crop")


def test_an_older_store_is_brought_up_to_date_with_its_people(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 1)
        with Store(place) as store:
            people.add(store, "Ada", [reference(1)])
            with store.read() as connection:
                assert not connection.dialect.has_table(connection, "sighting")
    with Store(place) as store:
        assert [person.name for person in people.everybody(store)] == ["Ada"]
        assert people.sightings_of(store, 1) == []
        assert people.references_of(store, "Ada")


def test_a_store_that_is_none_any_more_is_left_alone_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mien.db").write_bytes(b"no store" * 1000)
    with pytest.raises(StoreError, match=r"not a database; put back your copy \(docs/deployment.md, Backups\)"):
        Store(tmp_path)
    assert (tmp_path / "mien.db").read_bytes() == b"no store" * 1000 and not (tmp_path / "mien.key").exists()


def test_a_store_is_not_made_where_it_is_only_wanted_if_it_is_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"there is no store in {re.escape(str(tmp_path / 'data'))}"):
        Store(tmp_path / "data", make=False)
    assert not (tmp_path / "data").exists()
    Store(tmp_path / "data").close()
    Store(tmp_path / "data", make=False).close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "mien.db") as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    before = (tmp_path / "mien.db").read_bytes()
    with pytest.raises(StoreError, match="newer Mien"):
        Store(tmp_path)
    assert (tmp_path / "mien.db").read_bytes() == before


def test_a_file_that_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "mien.db").write_bytes(b"these are not the tables you are looking for" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_what_fails_half_way_has_not_happened(place: Place) -> None:
    with Store(place) as store:
        with pytest.raises(ZeroDivisionError), store.write() as connection:
            store.changed(connection)
            store.audit(connection, "tried", "something")
            _ = 1 / 0
        assert store.generation() == 0
        assert people.audit_log(store) == []


def test_writers_of_several_threads_wait_for_each_other(place: Place) -> None:
    def write(number: int) -> None:
        with Store(place) as store:
            for look in range(10):
                people.add(store, f"person {number}-{look}", [reference(number, look)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with Store(place) as store:
        assert len(people.everybody(store)) == 40
        assert store.generation() == 40


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from common import people
from common.place import Place
from common.store import Store
from tests.people import reference
with Store(Place(Path({folder!r}), {url!r})) as store:
    for number in range(10_000):
        people.add(store, f"person {{number}}", [reference(number, look) for look in range(3)])
        print(number, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
@pytest.mark.parametrize("after", [3, 17])
def test_it_survives_a_kill_in_the_middle_of_a_write(place: Place, after: int) -> None:
    code = WRITER.format(root=str(ROOT), folder=str(place.data_dir), url=place.url)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=stage_environment())
    assert process.stdout is not None
    done = -1
    for line in process.stdout:
        done = int(line)
        if done >= after:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    with Store(place) as store:
        kept = people.everybody(store)
        assert len(kept) >= done + 1  # what was said to be done is there
        assert all(person.references == 3 for person in kept)  # and nothing is there by half
        assert len(people.audit_log(store)) == len(kept)
        people.add(store, "afterwards", [reference(99_999)])
    if place.url is None:
        with sqlite3.connect(place.file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def test_a_change_is_seen_by_who_has_the_store_open(place: Place) -> None:
    with Store(place) as reader, Store(place) as writer:
        before = reader.generation()
        people.add(writer, "Ada", [reference(1)])
        wait_until(lambda: reader.generation() != before, 1, "the change is seen")


def test_what_is_deleted_leaves_the_files(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        people.add(store, "Ada Unusual-Name", [reference(1)], notes="a very particular note")
        store.scrub()
        assert b"a very particular note" in raw_bytes(tmp_path)
        from common import forgetting
        from common.config import load

        config = load(overrides={"storage": {"data_dir": tmp_path}}, environment={})
        forgetting.forget(store, config, "Ada Unusual-Name")
        assert b"a very particular note" not in raw_bytes(tmp_path)
        assert b"Unusual-Name" not in raw_bytes(tmp_path)


def test_a_busy_store_is_waited_for_not_failed(place: Place) -> None:
    with Store(place) as first, Store(place) as second:
        began = threading.Event()

        def hold() -> None:
            with first.write() as connection:
                first.changed(connection)
                began.set()
                time.sleep(0.5)  # the time that a long write takes

        holder = threading.Thread(target=hold)
        holder.start()
        assert began.wait(5)
        people.add(second, "Ada", [reference(1)])
        holder.join(10)
        assert second.generation() == 2


def test_made_up_faces_are_like_real_ones() -> None:
    assert 0.25 < np.linalg.norm(face_of(1, 0) - face_of(1, 1)) < 0.45
    assert 0.65 < np.linalg.norm(face_of(1, 0) - face_of(2, 0)) < 1.0
