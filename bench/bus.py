"""What the bus costs: processor time with many subscribers, and what one that stalls does to it and to the others.

    python bench/bus.py [--subscribers 100] [--rate 30] [--seconds 10] [--rounds 3] [--minutes 1]

The bus is the real stage in a process of its own; results of two faces are published at ``--rate`` a second, and
subscribers in another process read them. Targets: 100 subscribers at 30 results/s cost at most 0.2 of a core; beside a
subscriber that reads nothing, the bus grows by at most 20 MB in ten minutes (``--minutes 10``), and the others' 99th
percentile stays within a tenth. With and without it, rounds run in turn.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, in_turn, median, percentile, usage
from common import config as configuration
from common.analyse import private_endpoints
from common.child import environment
from common.messages import Result
from common.news import NewsReader, NewsWriter
from common.schemas import EXAMPLES
from common.settings import Config
from common.transport import Poller, Socket, opened, terminate

CORE_TARGET = 0.2
GROWTH_TARGET_MB = 20.0
P99_TARGET = 1.1
STALLS = ("stopped", "reads nothing")
OTHERS = 10  # beside somebody who stalls: a hundred in one process would mostly wait for each other
_TIMED = 10  # subscribers whose messages are timed; to look into every message would cost more than the bus


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=30.0, help="results a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each way")
    parser.add_argument("--minutes", type=float, default=1.0, help="that a stalled subscriber is watched for growth")
    parser.add_argument("--subscribe", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.subscribe:
        endpoint, count = given.subscribe.split(",")
        subscribe(endpoint, int(count))
        return 0
    report = Report("bus", "processor time of the bus by subscribers, and what a stalled one costs")
    report.settings = {"rate": given.rate, "seconds": given.seconds, "rounds": given.rounds, "minutes": given.minutes}
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        config = _config(Path(folder))
        with running_bus(config) as bus, publishing(config, given.rate):
            cost(report, config, bus, given.subscribers, given.seconds, given.rounds)
            with subscribers(config, OTHERS) as others:
                stalled(report, config, bus, others, given.seconds, 2 * given.rounds)
                growth(report, config, bus, others, given.minutes)
    terminate()
    report.show()
    print(f"kept in {report.save()}")
    return 0


def cost(report: Report, config: Config, bus: int, most: int, seconds: float, rounds: int) -> None:
    """Add the processor time of the bus with no, some and all subscribers, in turn."""
    counts = sorted({0, max(1, most // 10), most})
    shares: dict[str, list[float]] = {str(count): [] for count in counts}
    came: dict[str, list[float]] = {str(count): [] for count in counts}
    for count in in_turn(list(shares), rounds):
        with subscribers(config, int(count)) as others:
            others.figures()
            before = usage({"bus": bus}, memory=False)
            time.sleep(seconds)
            after = usage({"bus": bus}, memory=False)
            shares[count].append(after.cpu_since(before)["bus"] / (after.at - before.at))
            came[count].append(others.figures()["received"] / (after.at - before.at))
    for count, found in shares.items():
        target = CORE_TARGET if int(count) == most else None
        report.add("cost", subscribers=int(count), received_s=median(came[count]), cores=median(found), target=target)


def stalled(report: Report, config: Config, bus: int, others: Subscribers, seconds: float, rounds: int) -> None:
    """Add the others' times with and without somebody who stalls, in turn."""
    ways = ("alone", *STALLS)
    tails: dict[str, list[float]] = {way: [] for way in ways}
    middles: dict[str, list[float]] = {way: [] for way in ways}
    for way in in_turn(ways, rounds):
        with stalling(config, way):
            others.figures()
            time.sleep(seconds)
            figures = others.figures()
            tails[way].append(figures["p99_ms"])
            middles[way].append(figures["p50_ms"])
    for way in ways:
        ratio = None if way == "alone" else median(tails[way]) / median(tails["alone"])
        report.add(
            "beside somebody who stalls", way=way, p50_ms=median(middles[way]), p99_ms=median(tails[way]),
            p99_ratio=ratio, target=None if ratio is None else P99_TARGET,
        )  # fmt: skip


def growth(report: Report, config: Config, bus: int, others: Subscribers, minutes: float) -> None:
    """Add how much memory the bus takes while somebody stalls for a long time."""
    process = psutil.Process(bus)
    for way in STALLS:
        before = process.memory_info().rss / 2**20
        most = before
        with stalling(config, way):
            ends = time.monotonic() + minutes * 60
            while time.monotonic() < ends:
                time.sleep(min(1.0, minutes * 30))
                most = max(most, process.memory_info().rss / 2**20)
        figures = others.figures()
        report.add(
            "growth", way=way, minutes=minutes, before_mb=before, most_mb=most, growth_mb=most - before,
            target=GROWTH_TARGET_MB, others_lost=figures["lost"],
        )  # fmt: skip


# --- the parts ---


@contextmanager
def running_bus(config: Config) -> Iterator[int]:
    """The stage as a process; gives its id."""
    path = config.run_dir / "config.json"
    configuration.save(config, path)
    command = [sys.executable, "-m", "stages.bus", "--config", str(path)]
    process = subprocess.Popen(command, env=environment(None), stdin=subprocess.DEVNULL)
    try:
        with_news = NewsReader(config, ("stats.bus",))
        if not with_news.read(timeout_ms=20_000):
            raise RuntimeError("the bus did not start within 20 s")
        with_news.close()
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def publishing(config: Config, rate: float) -> Iterator[None]:
    """Results of two faces, at an even pace, until the end."""
    result = Result.model_validate_json(json.dumps(EXAMPLES[Result][1]))
    end = threading.Event()

    def publish() -> None:
        writer = NewsWriter(config, "conductor.bench.1")
        due = time.monotonic()
        while not end.wait(max(0.0, due - time.monotonic())):
            writer.publish(result.model_copy(update={"at": time.time()}), "cam0")
            due = max(due + 1 / rate, time.monotonic() - 1)
        writer.close()

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


class Subscribers:
    """Many subscribers in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def figures(self) -> dict[str, float]:
        """Return what they have received since the last call: how many, how many lost, how old (ms)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("figures\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def subscribers(config: Config, count: int) -> Iterator[Subscribers]:
    """So many subscribers, connected."""
    command = [sys.executable, __file__, "--subscribe", f"{config.endpoints.news_out},{count}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(None)
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()  # every one of them has received something
        try:
            yield Subscribers(process)
        finally:
            process.stdin.close()
            process.wait(10)


def subscribe(endpoint: str, count: int) -> None:
    """The other process: read results on ``count`` sockets, tell figures when asked, end with the standard input."""
    sockets = [opened("news_out", endpoint, "sub") for _ in range(count)]
    timed = set(sockets[:_TIMED])
    poller = Poller(sockets)
    for socket in sockets:
        socket.subscribe(b"results.")
    silent, ages, received, lost = set(sockets), list[float](), 0, 0
    last: dict[Socket, int] = {}
    told = False
    while True:
        for socket in poller.wait(20):
            while (parts := socket.receive()) is not None:
                received += 1
                silent.discard(socket)
                if socket in timed:
                    fields = msgpack.unpackb(parts[1])
                    ages.append((time.time() - fields["at"]) * 1e3)
                    lost += max(0, fields["n"] - last.get(socket, fields["n"] - 1) - 1)
                    last[socket] = fields["n"]
        if not silent and not told:
            print("all there", flush=True)
            told = True
        if told and select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                break
            figures = {"received": received, "lost": lost, "p50_ms": percentile(ages, 0.5)}
            print(json.dumps(figures | {"p99_ms": percentile(ages, 0.99)}), flush=True)
            ages, received, lost = [], 0, 0
    for socket in sockets:
        socket.close()
    terminate()


@contextmanager
def stalling(config: Config, way: str) -> Iterator[None]:
    """One more subscriber, who stalls: its process is stopped, or it lives and reads nothing. None for ``alone``."""
    if way == "alone":
        yield
        return
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from common.transport import opened; "
        "s = opened('news_out', sys.argv[2], 'sub'); s.subscribe(b'results.'); s.wait(20000); "
        "print('there', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).resolve().parents[1]), config.endpoints.news_out]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(None)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if way == "stopped":
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.kill()


def _config(folder: Path) -> Config:
    # The address that subscribers connect to is TCP, as they have it.
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    inside = private_endpoints(folder)
    endpoints = {"news_in": inside["news_in"], "news_out": f"tcp://127.0.0.1:{port}"}
    return configuration.load(overrides={"run_dir": folder, "endpoints": endpoints}, environment={})


if __name__ == "__main__":
    sys.exit(main())
