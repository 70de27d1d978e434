"""What tests share: a configuration of their own, a running bus, and waiting that has a deadline."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from common import config as configuration
from common import transport
from common.messages import Control
from common.news import NewsReader, NewsWriter
from common.settings import Config
from tests.databases import own_server as own_server
from tests.databases import place as place
from tests.databases import shared_server as shared_server

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")

# Examples are found, not timed: a busy machine must not fail a test.
settings.register_profile("mien", deadline=None)
settings.load_profile("mien")


# Files that take longest begin first, so that no worker is left with a long one at the end. The rest stands as it is.
LONGEST_FIRST = (
    "page/test_browser.py", "test_privacy.py", "test_people.py", "bench/test_benches.py", "test_machines.py",
    "common/test_history.py", "test_hostile.py", "chaos/test_processes.py", "chaos/test_store.py",
    "stages/test_alerts.py", "test_golden.py", "test_pipeline.py", "common/test_supervisor.py",
    "common/test_analyse.py", "page/test_stage.py", "stages/test_snapshot.py", "test_launch.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    rank = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def wait_until(predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """Return the first true value of ``predicate``; fail with ``what`` when there is none within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what or predicate}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Return TCP ports of the loopback that nobody listens on.

    From below where the system takes the ports of outgoing connections: those of other tests, running at the same time,
    could take one before it is listened on.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(16_000, 32_000)  # not the generator that tests seed
        if port in ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    return ports


def stage_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a stage started by hand: this project's code first, nobody's MIEN_ variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MIEN_")}
    path = os.pathsep.join(
        part for part in (str(ROOT), extra.pop("PYTHONPATH", ""), environment.get("PYTHONPATH")) if part
    )
    return environment | {"PYTHONPATH": path} | extra


def start_stage(name: str, config: Config, *arguments: str, **popen: object) -> subprocess.Popen[bytes]:
    """Start ``python -m stages.<name>`` with this configuration, which must have been saved (fixture ``config``)."""
    command = [sys.executable, "-m", f"stages.{name}", "--config", str(config.run_dir / "config.json"), *arguments]
    options: dict[str, object] = {"env": stage_environment(), "stdin": subprocess.DEVNULL} | popen
    return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> int:
    """Ask a process to end, kill it when it does not; return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail(f"a process did not end within {timeout_s:g} s when asked: {process.args!r}")


def await_bus(config: Config, timeout_s: float = 20.0) -> None:
    """Return when a message sent to the bus comes back."""
    writer, reader = NewsWriter(config, "test.await"), NewsReader(config, ("control.test-await",))
    message = Control.model_validate({"from": "test.await", "request": "0" * 32, "do": "nothing"})

    def came_back() -> bool:
        writer.publish(message, "test-await")
        return bool(reader.read(timeout_ms=50))

    try:
        wait_until(came_back, timeout_s, "the bus forwards")
    finally:
        reader.close()
        writer.close()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="mien"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def own_config(run_dir: Path, data_dir: Path) -> Config:
    """Return a configuration that meets nobody else's: own directories, free ports. Saved for stages."""
    news_in, news_out, previews, page = free_ports(4)
    made = configuration.load(
        overrides={
            "run_dir": run_dir,
            "endpoints": {
                "news_in": f"tcp://127.0.0.1:{news_in}",
                "news_out": f"tcp://127.0.0.1:{news_out}",
                "previews": f"tcp://127.0.0.1:{previews}",
            },
            "dashboard": {"port": page},
            "storage": {"data_dir": data_dir},
        },
        environment={},
    )
    configuration.save(made, run_dir / "config.json")
    return made


@pytest.fixture
def config(run_dir: Path, tmp_path: Path) -> Config:
    """A configuration of the test's own; see ``own_config``."""
    return own_config(run_dir, tmp_path / "data")


@pytest.fixture
def bus(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """A running bus of ``config``."""
    process = start_stage("bus", config)
    try:
        await_bus(config)
        yield process
    finally:
        end(process)


@pytest.fixture(scope="session", autouse=True)
def end_zmq() -> Iterator[None]:
    """Close what tests left open, so that the interpreter can end."""
    yield
    transport.terminate()
