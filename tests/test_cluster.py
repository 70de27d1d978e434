"""Mien on a Ray cluster of several nodes, each with an address of its own: real video, a dead node, nothing left.

All of it is in a network of its own where that is allowed, so that nothing listens outside and nothing gets out.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common import config as configuration
from common import transport
from common.messages import Result, Stats
from common.news import NewsReader
from common.settings import Config
from tests.conftest import ROOT, free_ports, stage_environment, wait_until
from tests.people import own_data_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HEAD, CAMERA, SPARE, LATE = "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"
TOKEN = "0123456789abcdef0123456789abcdef01"
STARTS_WITHIN_S = 240.0
BACK_WITHIN_S = 15.0
_CLONE_NEWNET = 0x40000000


@pytest.fixture
def apart() -> Iterator[bool]:
    """This thread, and what it starts, in a network namespace with nothing but a loopback; says whether it worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before:
        transport.terminate()  # its threads live in the network that they began in
        allowed = libc.unshare(_CLONE_NEWNET) == 0
        if allowed:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        try:
            yield allowed
        finally:
            transport.terminate()
            if allowed and libc.setns(before.fileno(), _CLONE_NEWNET) != 0:
                pytest.exit("cannot return to the network namespace of the tests")


class Cluster:
    """Nodes of a Ray cluster, each started as ``docs/deployment.md`` says."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"{HEAD}:{port}"
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.options: dict[str, tuple[str, ...]] = {}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment = stage_environment(PATH=path, RAY_AUTH_TOKEN=TOKEN, RAY_AUTH_MODE="token", RAY_PORT=str(port))

    def start(self, address: str, *options: str) -> None:
        """Start a node; it joins by itself."""
        first = ("head", address, f"--temp-dir={self.folder}") if address == HEAD else (self.address, address)
        self.options[address] = options
        with (self.folder / f"{address}.log").open("wb") as log:
            self.nodes[address] = subprocess.Popen(
                [str(ROOT / "deploy/ray/node.sh"), *first, *options],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self, address: str) -> None:
        """Return when a node is up. Ray gives itself 30 s, which is too little on a busy machine: it may try again."""
        log = self.folder / f"{address}.log"
        tries = 1

        def is_up() -> bool:
            nonlocal tries
            if self.nodes[address].poll() is not None:
                assert tries < 4 and "timed out during startup" in log.read_text(), log.read_text()
                tries += 1
                self.start(address, *self.options[address])
            return "Ray runtime started" in log.read_text()

        wait_until(is_up, STARTS_WITHIN_S, f"node {address} is up")

    def processes(self, address: str) -> list[psutil.Process]:
        """Return the processes of a node: Ray's, its actors', and the stages that those have started."""
        node = psutil.Process(self.nodes[address].pid)
        return [node, *node.children(recursive=True)]

    def kill(self, address: str) -> list[psutil.Process]:
        """Kill all that is Ray's on a node, at once; return the stages there, which nobody has touched."""
        everything = self.processes(address)
        stages = [process for process in everything if _stage(process)]
        for process in everything:
            if process not in stages:
                _kill(process)
        self.nodes.pop(address).wait()
        return stages

    def stop(self) -> None:
        """End all nodes, the head last; what does not end is killed."""
        alive = [address for address, node in self.nodes.items() if node.poll() is None]
        everything = [process for address in alive for process in self.processes(address)]
        for address in reversed(list(self.nodes)):
            self.nodes[address].terminate()
        for node in self.nodes.values():
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
        for process in psutil.wait_procs(everything, timeout=10)[1]:
            _kill(process)


class Run:
    """``launch.py --cluster`` on the head's node, and what it says on the bus."""

    def __init__(self, cluster: Cluster, config: Config, *arguments: str) -> None:
        self.config = config
        self.log = cluster.folder / "launch.log"
        path = cluster.folder / "mien.json"
        configuration.save(config, path)
        command = [sys.executable, str(ROOT / "launch.py"), "--headless", "--verbose", "--config", str(path)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--cluster", cluster.address, *arguments],
                env=cluster.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._reader: NewsReader | None = None
        self.results: list[Result] = []
        self.stats: dict[str, Stats] = {}
        self._bus = ""

    def said(self) -> str:
        """Return all that it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def read(self) -> None:
        """Take in the news, from wherever the bus is now."""
        saved = self.config.run_dir / "config.json"
        if saved.is_file():
            config = configuration.load(saved, environment={})
            if config.endpoint("news_out") != self._bus:
                self.close()
                self._bus = config.endpoint("news_out")
                self._reader = NewsReader(config, ("results.", "stats."))
        if self._reader is None:
            return
        for _, message in self._reader.read(timeout_ms=50):
            if isinstance(message, Result):
                self.results.append(message)
            elif isinstance(message, Stats):
                self.stats[message.sender] = message

    def until(self, predicate: object, what: str, timeout_s: float) -> float:
        """Read news until the predicate is true; return how long it took, seconds."""
        began = time.monotonic()

        def holds() -> bool:
            self.read()
            assert self.process.poll() is None, self.said()
            return bool(predicate())  # type: ignore[operator]

        wait_until(holds, timeout_s, f"{what}; it said:\n{self.said()[-6000:]}")
        return time.monotonic() - began

    def where(self) -> dict[str, str]:
        """Return on which node each process is, as the run says."""
        for stats in self.stats.values():
            if stats.stage == "cluster":
                nodes = {key: str(value) for key, value in stats.detail.items() if key.endswith(".node")}
                return {key.removesuffix(".node"): value for key, value in nodes.items()}
        return {}

    def fresh(self, count: int, timeout_s: float) -> list[Result]:
        """Return so many results that were captured from now on."""
        since = time.time()
        found = lambda: [r for r in self.results if r.captured_at > since and r.analysed]  # noqa: E731
        self.until(lambda: len(found()) >= count, f"{count} fresh results", timeout_s)
        return found()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


@pytest.fixture
def cluster(apart: bool) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: it holds sockets
    made = Cluster(folder, free_ports(1)[0] % 5000 + 5000)  # below the ports that Ray gives its workers
    made.start(HEAD, "--num-cpus=2")
    try:
        made.wait(HEAD)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _settings(folder: Path, **cluster: object) -> Config:
    news_in, news_out, previews = free_ports(3)
    return configuration.load(
        overrides={
            "cameras": {"cam0": {"source": "demo", "max_rate": 8}},
            "run_dir": folder / "run",
            "storage": {"data_dir": own_data_dir(folder / "data")},
            "dashboard": {"enabled": False},
            "endpoints": {
                "news_in": f"tcp://127.0.0.1:{news_in}",
                "news_out": f"tcp://127.0.0.1:{news_out}",
                "previews": f"tcp://127.0.0.1:{previews}",
            },
            "workers": {"detection": 2},
            "supervision": {"start_timeout_s": 120},
            "cluster": cluster,
        },
        environment={},
    )


def test_a_node_dies_and_its_stages_are_back_elsewhere(cluster: Cluster) -> None:
    for address in (CAMERA, SPARE):
        cluster.start(address, "--num-cpus=1", '--resources={"camera0": 1, "bus": 1, "net": 1}')
    for address in (CAMERA, SPARE):
        cluster.wait(address)
    config = _settings(
        cluster.folder,
        places={"capture.cam0": "camera0", "bus": "bus", "preview": "net", "detection": "net"},
        detection={"minimum": 2, "maximum": 2, "cpu": 0.05},
        expression={"cpu": 0.05},
        identity={"cpu": 0.05},
    )
    run = Run(cluster, config)
    try:
        run.fresh(10, STARTS_WITHIN_S)
        told = lambda: any(f.expression.status == "ok" for r in run.results for f in r.faces)  # noqa: E731
        run.until(told, "expressions, too", 120)
        run.until(lambda: len(run.where()) >= 9 and "nowhere" not in run.where().values(), "all have a place", 120)
        before = run.where()
        assert before["conductor"] == before["history"] == HEAD
        assert {before["capture.cam0"], before["bus"], before["detection.1"], before["detection.2"]} <= {CAMERA, SPARE}

        # A stage outlives neither its actor nor is it missed for long.
        actor = next(p for p in cluster.processes(before["detection.1"]) if _is_actor_of(p, "detection"))
        (stage,) = [child for child in actor.children() if _stage(child) == "detection"]
        actor.kill()
        wait_until(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE, 5, "the stage ends too")
        known = stage.pid
        took = run.until(
            lambda: len([p for p in _stages(cluster, "detection") if p.pid != known]) == 2, "it is back", BACK_WITHIN_S
        )
        print(f"an actor killed: its stage is back after {took:.1f} s")

        # The node of the bus and the camera, all at once.
        victim = before["capture.cam0"]
        killed_at = time.time()
        orphans = cluster.kill(victim)
        assert orphans, "the node had stages"
        alive = lambda: [f"{_stage(p)} {p.pid}" for p in orphans if _lives(p)]  # noqa: E731
        wait_until(lambda: not alive(), 15, f"they end by themselves: {orphans}")
        fresh = lambda: [r for r in run.results if r.captured_at > killed_at and r.analysed]  # noqa: E731
        took = run.until(lambda: len(fresh()) >= 5, "results again", BACK_WITHIN_S + 5)
        print(f"a node killed: five results from the other after {took:.1f} s")
        assert fresh()[0].captured_at - killed_at <= BACK_WITHIN_S
        run.until(lambda: victim not in run.where().values(), "the run says that all are elsewhere", 30)
        numbers = [(result.camera, result.run, result.seq) for result in run.results]
        assert len(numbers) == len(set(numbers)), "a result came twice"

        left = [p for address in cluster.nodes for p in cluster.processes(address) if _stage(p)]
        run.process.terminate()
        assert run.process.wait(30) == 0, run.said()
        wait_until(lambda: not any(_lives(process) for process in left), 5, "no stage is left")
    finally:
        run.close()
        if run.process.poll() is None:
            run.process.kill()
    assert not list(Path(tempfile.gettempdir()).glob(f"mien-cluster-{os.getuid()}-mien-*"))


def test_pools_follow_the_work_and_a_killed_command_leaves_nothing(cluster: Cluster) -> None:
    wrong = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--headless", "--source", "demo", "--cluster", cluster.address],
        env=cluster.environment | {"RAY_AUTH_TOKEN": "f" * 34, "MIEN_RUN_DIR": str(cluster.folder / "other")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert wrong.returncode == 2 and "the same token" in wrong.stderr, wrong.stderr

    cluster.start(LATE, "--num-cpus=1")
    cluster.wait(LATE)
    config = _settings(
        cluster.folder,
        detection={"minimum": 1, "maximum": 3, "cpu": 0.05},
        expression={"cpu": 0.05},
        identity={"cpu": 0.05},
        scaling={"grow_after_s": 1, "shrink_after_s": 2, "lost_share": 0.02},
    )
    # Sixty large looks a second are more than one worker, or this machine, can do.
    config = config.model_copy(
        update={
            "cameras": {"cam0": config.cameras["cam0"].model_copy(update={"max_rate": 60.0, "source": "demo:crowd"})},
            "detection": config.detection.model_copy(update={"input_long_side": 1280, "adapt_input": False}),
            "workers": config.workers.model_copy(update={"detection": 1}),
        }
    )
    run = Run(cluster, config)
    try:
        run.until(lambda: len(_stages(cluster, "detection")) == 3, "the pool has grown to its maximum", STARTS_WITHIN_S)
        assert "found no worker in time" in run.said()
        capture = _stages(cluster, "capture")[0]
        capture.suspend()  # no more work; the supervisor replaces it, and again and again
        run.until(lambda: "workers instead of 3" in run.said() or _suspend_all(cluster), "the pool shrinks", 60)
        left = [process for address in cluster.nodes for process in cluster.processes(address) if _stage(process)]
        run.process.kill()
        wait_until(lambda: not any(_lives(process) for process in left), 20, "no stage outlives the command")
    finally:
        run.close()
        if run.process.poll() is None:
            run.process.kill()


def _suspend_all(cluster: Cluster) -> bool:
    for process in _stages(cluster, "capture"):
        process.suspend()
    return False


def _stage(process: psutil.Process) -> str:
    """Return which stage a process is, "" for others."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return next((word.removeprefix("stages.") for word in words if word.startswith("stages.")), "")


def _stages(cluster: Cluster, name: str) -> list[psutil.Process]:
    return [p for address in list(cluster.nodes) for p in cluster.processes(address) if _stage(p) == name and _lives(p)]


def _is_actor_of(process: psutil.Process, stage: str) -> bool:
    try:
        return not _stage(process) and any(_stage(child) == stage for child in process.children())
    except psutil.Error:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
