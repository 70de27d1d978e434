"""The command line as a person uses it: real processes, from start to nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from common import media
from common.messages import Result
from common.news import NewsReader
from common.settings import Config
from launch import parser
from tests.conftest import ROOT, await_bus, stage_environment, wait_until

Launched = subprocess.Popen[str]


@pytest.fixture
def settings(config: Config, tmp_path: Path) -> Path:
    """``config`` as a person writes it. Its run directory is not yet there."""
    (config.run_dir / "config.json").unlink()
    ends = config.endpoints
    text = (
        f"run_dir = '{config.run_dir / 'run'}'\n"
        f"[endpoints]\nnews_in = '{ends.news_in}'\nnews_out = '{ends.news_out}'\npreviews = '{ends.previews}'\n"
        f"[dashboard]\nport = {config.dashboard.port}\n"
        f"[storage]\ndata_dir = '{tmp_path / 'data'}'\n"
    )
    path = tmp_path / "mien.toml"
    path.write_text(text)
    return path


@pytest.fixture
def launch(settings: Path) -> Iterator[Callable[..., Launched]]:
    """Start launch.py with the settings; whatever still runs at the end is killed."""
    started: list[Launched] = []

    def start(*arguments: str, python: tuple[str, ...] = (), with_settings: bool = True, **extra: str) -> Launched:
        command = [sys.executable, *python, str(ROOT / "launch.py"), *arguments]
        if with_settings:
            command += ["--config", str(settings)]
        process = subprocess.Popen(
            command, env=stage_environment(**extra), cwd=settings.parent, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def outcome(process: Launched, timeout_s: float = 30) -> tuple[int, str]:
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out + err


def processes_of(run_dir: Path) -> list[psutil.Process]:
    """Return the processes that were started with this run's configuration."""
    mark = str(run_dir / "config.json")
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def nothing_left(config: Config) -> None:
    run_dir = config.run_dir / "run"
    assert processes_of(run_dir) == []
    assert not run_dir.exists() or list(run_dir.iterdir()) == []
    for endpoint in (config.endpoints.news_in, config.endpoints.news_out, config.endpoints.previews):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))) != 0


BUS_ALONE = ("--only", "bus", "--source", "webcam", "--verbose")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_ends_with_0_within_three_seconds_and_leaves_nothing(
    launch: Callable[..., Launched], config: Config, how: signal.Signals
) -> None:
    process = launch(*BUS_ALONE)
    await_bus(config)
    assert len(processes_of(config.run_dir / "run")) == 1
    began = time.monotonic()
    process.send_signal(how)
    code, said = outcome(process)
    assert time.monotonic() - began < 3
    assert code == 0, said
    assert "started bus" in said and "python -m stages.expression --config" in said
    assert "Traceback" not in said
    nothing_left(config)


def test_it_ends_by_itself_after_its_duration(launch: Callable[..., Launched], config: Config) -> None:
    began = time.monotonic()
    code, said = outcome(launch(*BUS_ALONE, "--duration", "1.5"))
    assert code == 0, said
    assert 1.5 < time.monotonic() - began < 10
    nothing_left(config)


def test_killed_with_9_its_stages_end_too(launch: Callable[..., Launched], config: Config) -> None:
    process = launch(*BUS_ALONE)
    await_bus(config)
    [stage] = processes_of(config.run_dir / "run")
    process.kill()
    process.wait(5)
    wait_until(lambda: not stage.is_running(), 5, "the bus ends when launch.py is gone")
    # … and the next start finds its way past what was left.
    code, said = outcome(launch(*BUS_ALONE, "--duration", "0.5"))
    assert code == 0, said
    nothing_left(config)


def test_a_second_one_in_the_same_run_directory_is_refused(launch: Callable[..., Launched], config: Config) -> None:
    first = launch(*BUS_ALONE)
    await_bus(config)
    code, said = outcome(launch(*BUS_ALONE))
    assert code == 2
    assert f"another Mien is running (process {first.pid}) in {config.run_dir / 'run'}" in said
    assert first.poll() is None


@pytest.mark.parametrize("channel", ["news_in", "news_out"])
def test_a_port_in_use_ends_it_at_once_and_says_so(
    launch: Callable[..., Launched], config: Config, channel: str
) -> None:
    port = int(config.endpoint(channel).rsplit(":", 1)[1])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        began = time.monotonic()
        code, said = outcome(launch(*BUS_ALONE))
    assert time.monotonic() - began < 10
    assert code == 2
    assert f"cannot listen on tcp://127.0.0.1:{port}" in said.splitlines()[-1]
    assert "restart" not in said and "Traceback" not in said
    nothing_left(config)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--workers", "detection=4", "analyse", "a.mp4", "--out", "a.csv"], "workers", "detection=4"),
        (["analyse", "a.mp4", "--out", "a.csv", "--workers", "detection=4"], "workers", "detection=4"),
        (["--camera", "door", "snapshot"], "camera", "door"),
        (["snapshot"], "camera", None),
    ],
    ids=["before", "after", "a camera before", "none"],
)
def test_an_option_counts_wherever_it_stands(words: list[str], name: str, value: str | None) -> None:
    assert getattr(parser().parse_args(words), name) == value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "detektion"], "--only detektion: there is no such stage; there are bus,"),
        (["--without", "bus,window"], "--without window: there is no such stage"),
        (["--workers", "detection"], "--workers detection: write it like detection=2,expression=3"),
        (["--workers", "faces=2"], "pools are detection, identity, expression"),
        (["--workers", "detection=999"], "workers.detection = 999"),
        (["--source", "webcamm"], "did you mean webcam?"),
        (["--source", "missing.mp4"], "there is no file or folder 'missing.mp4'"),
        (["--camera", "cam7"], "--camera cam7: no such camera is configured; there are cam0"),
        (["--camera", "a b", "--source", "demo"], "a name is made of letters, digits"),
        (["--duration", "-1"], "'-1' is not a number of seconds"),
        (["--duration", "nan"], "'nan' is not a number of seconds"),
        (["--nonsense"], "--nonsense"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_wrong_word_is_answered_with_what_would_be_right(
    launch: Callable[..., Launched], arguments: list[str], expected: str
) -> None:
    code, said = outcome(launch(*arguments, with_settings=arguments != ["frobnicate"]))
    assert code == 2
    assert expected in said
    assert "Traceback" not in said


def test_a_wrong_setting_is_named_before_anything_starts(
    launch: Callable[..., Launched], settings: Path, config: Config
) -> None:
    settings.write_text(settings.read_text() + "[workers]\ndetection = 'two'\nfaces = 3\n")
    code, said = outcome(launch("--check-config"))
    assert code == 2
    assert "workers.detection = 'two'" in said and "workers.faces = 3: there is no such key; known here" in said
    assert not (config.run_dir / "run").exists()


def test_check_config_says_what_would_start(launch: Callable[..., Launched], settings: Path, config: Config) -> None:
    settings.write_text(settings.read_text() + "[cameras.ward]\nsource = 'webcam:1'\n[cameras.door]\nsource = 'demo'\n")
    code, said = outcome(launch("--check-config", "--workers", "detection=1,expression=3", "--headless"))
    assert code == 0, said
    assert "detection.1, identity.1, expression.1, expression.2, expression.3" in said
    assert "capture.ward, capture.door" in said and "display" not in said
    code, said = outcome(launch("--check-config", "--camera", "door", "--headless"))
    assert code == 0 and "capture.door" in said and "capture.ward" not in said
    code, said = outcome(launch("--check-config", "--source", "demo"))
    assert code == 2 and "which camera is meant? Add --camera NAME: ward, door" in said
    assert not (config.run_dir / "run").exists()


def test_somebody_elses_package_in_the_way_is_named(launch: Callable[..., Launched], tmp_path: Path) -> None:
    fake = tmp_path / "site"
    (fake / "common").mkdir(parents=True)
    (fake / "common" / "__init__.py").write_text("raise ImportError('this is not the one you look for')")
    # The script's own directory comes first, …
    code, said = outcome(launch("--check-config", PYTHONPATH=str(fake)))
    assert code == 0, said
    # … unless Python was told to leave it out.
    command = [sys.executable, "-P", str(ROOT / "launch.py"), "--check-config"]
    environment = {**os.environ, "PYTHONPATH": str(fake)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "the package 'common' that Python finds is not Mien's" in done.stderr
    assert str(fake / "common") in done.stderr and "Traceback" not in done.stderr


def test_the_parent_loads_no_heavy_library(settings: Path) -> None:
    code = (
        "import sys, launch\n"
        f"code = launch.main({[*BUS_ALONE[:-1], '--duration', '2', '--config', str(settings)]!r})\n"  # with the table
        "heavy = {'cv2', 'torch', 'openvino', 'dlib', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(code or (f'{heavy} loaded' if heavy else 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=stage_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_everything_at_once_runs_shows_a_killed_worker_in_status_and_leaves_nothing(
    launch: Callable[..., Launched], config: Config
) -> None:
    run_dir = config.run_dir / "run"
    process = launch("--source", str(media.sample("woman.mp4")), "--headless")
    reader = NewsReader(config, ("results.cam0",))

    def sees_a_face() -> bool:
        messages = [message for _, message in reader.read(timeout_ms=50)]
        return any(isinstance(message, Result) and message.faces for message in messages)

    try:
        wait_until(sees_a_face, 60, "a face is seen")
        [worker] = [p for p in processes_of(run_dir) if "stages.expression" in p.cmdline()]
        worker.kill()

        def replaced() -> bool:
            code, said = outcome(launch("status", "--once"))
            assert code == 0, said
            lines = [line.split() for line in said.splitlines() if line.startswith("expression.1")]
            return bool(lines) and lines[0][1] == "running" and lines[0][-1] == "1"

        wait_until(replaced, 40, "status shows the restart")
    finally:
        reader.close()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, said = outcome(process)
    assert time.monotonic() - began < 3.5
    assert code == 0, said
    assert "expression.1 was killed by SIGKILL: starting it again" in said
    assert "Traceback" not in said
    nothing_left(config)


def test_every_frame_of_a_file_and_then_it_ends_by_itself(launch: Callable[..., Launched], config: Config) -> None:
    process = launch("--source", str(media.sample("man.mp4")), "--every-frame", "--headless")
    code, said = outcome(process, 100)
    assert code == 0, said
    assert "conductor has finished" in said
    nothing_left(config)


def test_killed_with_9_none_of_all_its_stages_stays(launch: Callable[..., Launched], config: Config) -> None:
    run_dir = config.run_dir / "run"
    process = launch("--source", str(media.sample("woman.mp4")), "--headless")
    wait_until(lambda: len(processes_of(run_dir)) >= 8, 30, "all have started")
    process.kill()
    process.wait(5)
    wait_until(lambda: not processes_of(run_dir), 15, "all have ended")


def test_status_says_when_nobody_is_there(launch: Callable[..., Launched], config: Config) -> None:
    code, said = outcome(launch("status", "--once"))
    assert code == 1
    assert f"no Mien is running here (news at {config.endpoints.news_out})" in said


def test_snapshot_says_when_nobody_is_there(launch: Callable[..., Launched]) -> None:
    code, said = outcome(launch("snapshot"))
    assert code != 0
    assert "Traceback" not in said and "running" in said
