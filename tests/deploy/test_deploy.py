"""What lies in ``deploy/`` fits the project: every path, option, port and setting in it exists and is accepted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import launch
from common import config as configuration
from common.plan import plan
from common.settings import Config
from tests.conftest import ROOT, await_bus, stage_environment, wait_until

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def _command(unit: Path, **places: Path | str) -> list[str]:
    """Return what a unit starts, with places of this machine instead of those that it names."""
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    text = line.removeprefix("ExecStart=").replace("/opt/mien/.venv/bin/python", sys.executable)
    text = text.replace("/opt/mien", str(ROOT))
    for place, instead in places.items():
        text = text.replace(place.replace("_", "/"), str(instead))
    return shlex.split(text)


@pytest.mark.parametrize(
    ("codes", "ends_with", "says"),
    [
        ((0,), 0, ""),
        ((1, 0), 0, "PASSED ONLY THE SECOND TIME"),
        ((1, 1), 1, "failed twice"),
        ((2, 0), 1, "broke off (pytest ended with 2)"),  # after a failure: the others were never asked
        ((3, 0), 1, "broke off (pytest ended with 3)"),
    ],
)
def test_failed_tests_are_asked_again_only_when_all_have_run(
    tmp_path: Path, codes: tuple[int, ...], ends_with: int, says: str
) -> None:
    for name in (".ci", ".venv/bin", "bin", ".pytest_cache/v/cache"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    # Instead of pytest: ends with the next of the codes, and notes a failed test.
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    stand_in = f"""#!/bin/sh
if [ "$1" != "-m" ]; then exec {sys.executable} "$@"; fi
code=$(head -n 1 codes); sed -i 1d codes
echo '{{"tests/x.py::test_y": true}}' > .pytest_cache/v/cache/lastfailed
exit "$code"
"""
    make = """#!/bin/sh
[ "$1" = test ] || exit 0
.venv/bin/python -m pytest
code=$?
echo $code > .venv/pytest-status
[ $code = 0 ] || exit 2
"""
    for path, text in ((".venv/bin/python", stand_in), ("bin/make", make)):
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == ends_with and says in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs Debian's package systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    text = unit.read_text().replace("/opt/mien/.venv/bin/python", sys.executable)
    copy.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr
    wrong = tmp_path / "wrong.service"
    wrong.write_text(text.replace("Restart=always", "Restart=perhaps"))
    told = subprocess.run([*command[:-1], str(wrong)], capture_output=True, text=True, timeout=60).stderr
    assert "restart specifier" in told, "what is wrong would be noticed"
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(copy)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert exposure.returncode == 0, exposure.stdout[-500:] + exposure.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_give_options_that_there_are(unit: Path, config: Config) -> None:
    command = _command(unit)
    assert Path(command[1]) == ROOT / "launch.py"
    arguments = launch.parser().parse_args(command[2:])
    assert plan(config, only=arguments.only, without=arguments.without, screen=False)
    text = unit.read_text()
    assert "User=mien" in text and re.search(r"^u mien ", (DEPLOY / "systemd/mien.sysusers").read_text(), re.M)
    for option, directory in (("--run-dir", "RuntimeDirectory"), ("--data-dir", "StateDirectory")):
        root = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib"}[directory]
        (name,) = re.findall(rf"^{directory}=(.*)$", text, re.M)
        assert command[command.index(option) + 1].startswith(f"{root}/{name}")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_cannot_start_is_tried_for_as_long_as_that_lasts(unit: Path) -> None:
    text = unit.read_text()
    assert "StartLimitIntervalSec=0" in text and "Restart=always" in text and "RestartPrevent" not in text


def test_each_unit_has_a_run_of_its_own_so_that_one_machine_can_have_several() -> None:
    runs = set()
    for unit in UNITS:
        (name,) = re.findall(r"^RuntimeDirectory=(.*)$", unit.read_text(), re.M)
        command = _command(unit)
        run = Path(command[command.index("--run-dir") + 1])
        assert run.parent == Path("/run", name)  # made and taken away with the unit
        runs.add(run)
    assert len(runs) == len(UNITS)


def test_what_the_unit_starts_can_be_killed_and_started_again(config: Config, tmp_path: Path) -> None:
    (unit,) = [unit for unit in UNITS if unit.name == "mien.service"]
    places = {"_etc_mien_mien.toml": config.run_dir / "config.json", "_run_mien_run": config.run_dir / "run"}
    command = [*_command(unit, **places, _var_lib_mien=tmp_path / "data"), "--only", "bus,history"]
    log = tmp_path / "log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(command, env=stage_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    process = start()
    try:
        await_bus(config, 60)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)  # as the system does when memory is short …
        process.wait()
        process = start()  # … and systemd brings it back, while what it had started is still ending
        psutil.wait_procs(children, timeout=5)
        wait_until(lambda: log.read_text().count("started history") == 2, 20, log.read_text())
        assert not any(child.is_running() for child in children)
        wait_until(lambda: process.poll() is not None or len(psutil.Process(process.pid).children()) == 2, 20)
        await_bus(config, 60)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_containers_fit_the_project() -> None:
    folder = DEPLOY / "container"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    settings = configuration.load(folder / "mien.toml", environment={})
    declared = set(compose["volumes"])
    for name, service in compose["services"].items():
        built = folder / service["build"]["context"]
        assert built.resolve() == ROOT
        containerfile = (built / service["build"]["dockerfile"]).read_text()
        arguments = launch.parser().parse_args(service["command"])
        assert plan(settings, only=arguments.only, screen=False)
        mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
        for source in mounts:
            assert source in declared or (folder / source).exists(), f"{name}: {source}"
        assert str(arguments.config) in mounts.values()
        assert service["network_mode"] == "host" and "ports" not in service
        user = re.search(r"useradd --uid (\d+)", containerfile)
        assert user and all(f"uid={user[1]}" in mount for mount in service["tmpfs"] if "/run" in mount)
    _check_containerfile(containerfile)
    health: list[Any] = compose["services"]["mien"]["healthcheck"]["test"]
    assert launch.parser().parse_args(health[3:]).once
    ports = [re.search(r"\d+$", address) for address in settings.endpoints.model_dump().values() if address]
    assert len({port[0] for port in ports if port}) == len(ports), "two channels share a port"
    assert f"127.0.0.1:{settings.dashboard.port}" in (folder / "compose.yaml").read_text()


def _check_containerfile(text: str) -> None:
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    copied: set[str] = set()
    for line in lines:
        if line.startswith("COPY "):
            *sources, _ = line.split()[1:]
            copied.update(sources)
            assert all((ROOT / source).exists() for source in sources), line
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    needed = {name.split(".")[0] for name in packages} | {"launch.py", "pyproject.toml", "README.md"}
    assert needed <= copied, "a part of the project is not in the image"
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT ")]
    assert yaml.safe_load(entry.removeprefix("ENTRYPOINT "))[1] == "/opt/mien/launch.py"
    (default,) = [line for line in lines if line.startswith("CMD ")]
    launch.parser().parse_args(yaml.safe_load(default.removeprefix("CMD ")))
    for variable in re.findall(r"MIEN_([A-Z_]+)=", text):
        assert variable == "DATA_DIR" or variable.lower() in Config.model_fields
