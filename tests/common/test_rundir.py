"""The run directory is this user's alone, holds one run at a time, and is empty afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import ConfigError, load, save
from common.rundir import RunDir, RunDirError, attached, held, hold, is_running, let_go
from common.settings import Config
from tests.conftest import ROOT, stage_environment


@pytest.fixture
def fresh(config: Config) -> Config:
    """``config`` with a run directory that does not exist yet."""
    return Config.model_validate({**config.model_dump(), "run_dir": config.run_dir / "run"})


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_it_is_made_for_this_user_alone(fresh: Config) -> None:
    with RunDir(fresh):
        assert stat.S_IMODE(fresh.run_dir.stat().st_mode) == 0o700


def test_it_holds_the_configuration_while_the_run_lasts_and_nothing_after(fresh: Config) -> None:
    with RunDir(fresh) as place:
        assert load(place.config_file, environment={}) == fresh
        (fresh.run_dir / "frames").touch()  # as a killed conductor leaves its socket
    assert list(fresh.run_dir.iterdir()) == []


def test_a_second_run_is_refused_and_told_whose_it_is(fresh: Config) -> None:
    with RunDir(fresh):
        code = (
            "import sys; from pathlib import Path; from common.config import load; "
            "from common.rundir import RunDir; RunDir(load(Path(sys.argv[1]), environment={})).__enter__()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(fresh.run_dir / "config.json")],
            env=stage_environment(), cwd=ROOT, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode != 0
        assert f"another Mien is running (process {os.getpid()}) in {fresh.run_dir}" in done.stderr
        assert "--run-dir" in done.stderr
    with RunDir(fresh):
        pass  # free again


def test_what_a_killed_run_left_is_cleared(fresh: Config) -> None:
    fresh.run_dir.mkdir(mode=0o700)
    for name in ("jobs", "pid", "config.json", "lock"):
        (fresh.run_dir / name).write_text("old")
    with RunDir(fresh):
        assert not (fresh.run_dir / "jobs").exists()
        assert (fresh.run_dir / "pid").read_text() == str(os.getpid())


@pytest.mark.skipif(os.name != "posix", reason="file owners")
def test_somebody_elses_directory_is_refused(fresh: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.run_dir.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: fresh.run_dir.stat().st_uid + 1)
    with pytest.raises(RunDirError, match=r"belongs to another user .* --run-dir"), RunDir(fresh):
        pass
    assert list(fresh.run_dir.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file owners")
def test_what_somebody_else_has_laid_there_is_not_believed(fresh: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunDir(fresh):
        monkeypatch.setattr(os, "geteuid", lambda: fresh.run_dir.stat().st_uid + 1)
        with pytest.raises(ConfigError, match="belongs to another user"):
            attached(Config(run_dir=fresh.run_dir))
        assert not is_running(fresh)
        monkeypatch.undo()
        assert is_running(fresh)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_the_passwords_of_a_configuration_are_nobody_elses_to_read(fresh: Config) -> None:
    fresh.run_dir.mkdir()
    fresh.run_dir.chmod(0o755)  # as somebody may have made it
    with RunDir(fresh) as place:
        assert stat.S_IMODE(place.config_file.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_directory_that_others_can_write_to_is_refused(fresh: Config) -> None:
    fresh.run_dir.mkdir()
    fresh.run_dir.chmod(0o777)
    with pytest.raises(RunDirError, match="other users can write"), RunDir(fresh):
        pass


def test_a_link_or_a_file_in_its_place_is_refused(fresh: Config, tmp_path: Path) -> None:
    fresh.run_dir.symlink_to(tmp_path)
    with pytest.raises(RunDirError, match="not a directory"), RunDir(fresh):
        pass
    fresh.run_dir.unlink()
    fresh.run_dir.write_text("")
    with pytest.raises(RunDirError, match="not a directory"), RunDir(fresh):
        pass


def test_commands_find_the_run_that_goes_on(fresh: Config) -> None:
    asked = Config(run_dir=fresh.run_dir)
    assert attached(asked) is asked
    with RunDir(fresh):
        assert attached(asked).endpoints == fresh.endpoints
    assert attached(asked) is asked


# --- what people have asked for ---


def killed_run(config: Config) -> None:
    """A run in which somebody paused a camera, ended by kill -9."""
    saved = config.run_dir.parent / "asked.json"
    save(config, saved)
    code = (
        "import os, sys; from pathlib import Path; from common.config import load; "
        "from common.rundir import RunDir, hold; config = load(Path(sys.argv[1]), environment={}); "
        "RunDir(config).__enter__(); hold(config, 'paused-cam0', ''); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], env=stage_environment(), cwd=ROOT, timeout=30)
    assert done.returncode != 0


def test_what_people_asked_for_outlives_a_run_that_was_killed_and_its_run_directory(fresh: Config) -> None:
    killed_run(fresh)
    shutil.rmtree(fresh.run_dir)  # as after the power was away
    with RunDir(fresh):
        assert held(fresh, "paused-cam0") == ""
    assert held(fresh, "paused-cam0") is None  # it ended as it should


def test_what_people_asked_for_outlives_a_run_that_cannot_go_on(fresh: Config) -> None:
    with RunDir(fresh) as place:
        hold(fresh, "paused-cam0", "")
        place.broke_off = True
    assert held(fresh, "paused-cam0") == ""
    with pytest.raises(ZeroDivisionError), RunDir(fresh):
        raise ZeroDivisionError
    assert held(fresh, "paused-cam0") == ""
    with RunDir(fresh):
        let_go(fresh, "paused-cam0")
        assert held(fresh, "paused-cam0") is None


def test_what_people_asked_for_is_the_concern_of_that_run_alone(fresh: Config) -> None:
    other = Config.model_validate({**fresh.model_dump(), "run_dir": fresh.run_dir.parent / "other"})
    with RunDir(fresh):
        hold(fresh, "source-cam0", "webcam")
        with RunDir(other):
            assert held(other, "source-cam0") is None
        assert held(fresh, "source-cam0") == "webcam"


def test_where_the_data_directory_cannot_be_written_it_is_kept_in_the_run_directory(fresh: Config) -> None:
    fresh.storage.data_dir.write_text("no directory")
    with RunDir(fresh):
        hold(fresh, "paused-cam0", "")
        assert held(fresh, "paused-cam0") == ""
    assert list(fresh.run_dir.iterdir()) == []


def test_the_latest_wish_counts_also_after_a_time_in_which_the_data_directory_could_not_be_written(
    fresh: Config,
) -> None:
    fresh.storage.data_dir.write_text("no directory")
    with RunDir(fresh):
        hold(fresh, "source-cam0", "webcam")
        fresh.storage.data_dir.unlink()
        hold(fresh, "source-cam0", "screen")
        assert held(fresh, "source-cam0") == "screen"


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_what_people_asked_for_is_nobody_elses_to_read(fresh: Config) -> None:
    with RunDir(fresh):
        hold(fresh, "source-cam0", "rtsp://user:secret@camera/")
        [directory] = (fresh.storage.data_dir / "held").iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
