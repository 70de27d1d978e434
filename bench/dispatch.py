"""Pulled work against plain PUSH: the age of a frame when its result is there, with workers that only wait.

    python bench/dispatch.py [--seconds 6] [--rate 100]

Real processes, real sockets, raw 640×360 frames. ``pulled`` is Mien's dispatcher over XPUB; the others hand each frame
to whichever worker's queue has room, with a queue of one message and with ZeroMQ's default of a thousand.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, percentile
from common import config as configuration
from common.analyse import private_endpoints
from common.channels import CHANNELS, Channel
from common.child import environment
from common.dispatch import Dispatcher, Job
from common.messages import DetectionFinding, DetectionJob, Ready, kind_of, pack, unpack
from common.transport import Poller, Socket, terminate
from common.worker import job_topic

WIDTH, HEIGHT = 640, 360
QUEUES = {"pulled": 1, "push, queue of 1": 1, "push, default queue": 1000}
CASES = {
    "10 and 100 ms": (10.0, 100.0),
    "40 and 40 ms (overload)": (40.0, 40.0),
    "20 and 20 ms (exactly enough)": (20.0, 20.0),
}
_START_LIMIT_S = 180.0  # on a machine that has other work


@dataclass(frozen=True, slots=True)
class Figures:
    """Ages of frames when their results came, results a second, and of real workers the processor time of a result."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float = math.nan


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=100.0, help="frames a second that the source gives")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(*given.work)
        return 0
    report = Report("dispatch", "age of a frame when its result is there, and results a second")
    report.settings = {"seconds": given.seconds, "frames_s": given.rate}
    for case, waits_ms in CASES.items():
        for way in QUEUES:
            figures = measure(way, waits_ms, given.seconds, given.rate)
            report.add(
                "ages", workers=case, way=way, p50_ms=figures.p50_ms, p99_ms=figures.p99_ms, results_s=figures.per_s
            )
    report.show()
    print(f"kept in {report.save()}")
    terminate()
    return 0


def measure(way: str, waits_ms: Sequence[float], seconds: float, rate: float = 100.0) -> Figures:
    """Run one way (of ``QUEUES``) with workers that wait so many milliseconds a frame."""
    with tempfile.TemporaryDirectory(prefix="mien-") as folder, _workers(way, waits_ms, Path(folder)) as (jobs, found):
        ages = (_pulled if way == "pulled" else _pushed)(jobs, found, len(waits_ms), seconds, rate)
    return Figures(percentile(ages, 0.5), percentile(ages, 0.99), len(ages) / seconds)


def measure_real(workers: int, seconds: float, picture: NDArray[np.uint8], rate: float = 200.0) -> Figures:
    """Run real detection workers on one picture, (360, 640, 3) uint8, that comes more often than they can look."""
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        endpoints = private_endpoints(Path(folder))
        made = configuration.load(overrides={"run_dir": folder, "endpoints": endpoints}, environment={})
        configuration.save(made, Path(folder) / "config.json")
        command = [sys.executable, "-m", "stages.detection", "--config", str(Path(folder) / "config.json")]
        with (
            Socket(CHANNELS["jobs"], endpoints["jobs"], "xpub", bind=True) as jobs,
            Socket(CHANNELS["findings"], endpoints["findings"], "pull", bind=True) as found,
            contextlib.ExitStack() as stack,
        ):
            started = []
            for _ in range(workers):
                process = subprocess.Popen(command, env=environment(None), stdin=subprocess.DEVNULL)
                stack.enter_context(process)
                stack.callback(process.kill)
                started.append(psutil.Process(process.pid))
            before: list[float] = []
            ages = _pulled(jobs, found, workers, seconds, rate, picture, began=lambda: before.append(_used(started)))
            cpu_s = _used(started) - before[0]
    return Figures(percentile(ages, 0.5), percentile(ages, 0.99), len(ages) / seconds, 1e3 * cpu_s / max(1, len(ages)))


def _used(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextlib.contextmanager
def _workers(way: str, waits_ms: Sequence[float], folder: Path) -> Iterator[tuple[Socket, Socket]]:
    """Start the workers; give the bound ends of jobs and findings."""
    endpoints = private_endpoints(folder)
    role = "xpub" if way == "pulled" else "push"
    with (
        Socket(_channel(way), endpoints["jobs"], role, bind=True) as jobs,
        Socket(CHANNELS["findings"], endpoints["findings"], "pull", bind=True) as found,
        contextlib.ExitStack() as stack,
    ):
        for number, wait_ms in enumerate(waits_ms):
            arguments = [way, f"detection.bench.{number}", str(wait_ms), endpoints["jobs"], endpoints["findings"]]
            command = [sys.executable, str(Path(__file__).resolve()), "--work", *arguments]
            process = stack.enter_context(subprocess.Popen(command, env=environment(None)))
            stack.callback(process.kill)
        yield jobs, found


def _channel(way: str) -> Channel:
    if way == "pulled":
        return CHANNELS["jobs"]
    return replace(CHANNELS["frames"], name="jobs", send_queue=QUEUES[way], receive_queue=QUEUES[way])


# --- the side that gives work ----------------------------------------------------------------------------------------


class _Source:
    """Gives a frame at its time; keeps when each was given, and the ages of those whose results came."""

    def __init__(self, seconds: float, rate: float, picture: NDArray[np.uint8] | None = None) -> None:
        self.pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if picture is None else picture
        self.given_at: dict[int, float] = {}
        self.ages_ms: list[float] = []
        self._rate = rate
        self._began = time.monotonic()
        self._ends = self._began + seconds
        self._numbers = itertools.count(1)
        self._next = self._began

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._ends

    def wait_ms(self) -> float:
        return max(0.0, (self._next - time.monotonic()) * 1e3)

    def frame(self) -> int | None:
        """Return the number of the frame that is due now, if one is."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = max(self._next + 1 / self._rate, now - 0.1)
        number = next(self._numbers)
        self.given_at[number] = now
        return number

    def job(self, number: int) -> list[object]:
        message = DetectionJob(
            sender="conductor.bench.1", camera="cam0", run=1, seq=number, captured_at=time.time(), job=number,
            width=WIDTH, height=HEIGHT, encoding="raw",
        )  # fmt: skip
        return [pack(message), self.pixels]

    def result(self, number: int) -> None:
        self.ages_ms.append((time.monotonic() - self.given_at[number]) * 1e3)


def _pulled(
    jobs: Socket,
    found: Socket,
    workers: int,
    seconds: float,
    rate: float,
    picture: NDArray[np.uint8] | None = None,
    began: Callable[[], None] = lambda: None,
) -> list[float]:
    dispatcher: Dispatcher[int] = Dispatcher(timeout_s=10.0)
    poller = Poller((jobs, found))
    source = None
    deadline = time.monotonic() + _START_LIMIT_S
    while source is None or not source.over:
        poller.wait(5.0 if source is None else min(5.0, source.wait_ms()))
        while (parts := jobs.receive()) is not None:
            if bytes(parts[0][:1]) == b"\x01":
                dispatcher.subscribed(bytes(parts[0])[1:-1].decode())
        while (parts := found.receive()) is not None:
            if kind_of(bytes(parts[0])) is Ready:
                ready = unpack(Ready, parts[1])
                dispatcher.ready(ready.sender, ready.pool, ready.last_job, time.monotonic())
            else:
                finding = unpack(DetectionFinding, parts[1])
                job = dispatcher.done(finding.sender, finding.job)
                if job is not None and source is not None:
                    source.result(job.payload)
        if source is None:
            if dispatcher.workers("detection") == workers:
                began()
                source = _Source(seconds, rate, picture)
            elif time.monotonic() > deadline:
                raise RuntimeError("the workers did not come")
            continue
        if (number := source.frame()) is not None:
            dispatcher.put(Job(id=number, pool="detection", camera="cam0", payload=number, newest_only=True))
        for worker, job in dispatcher.assign(time.monotonic()):
            jobs.send([job_topic(worker), *source.job(job.payload)])
    return source.ages_ms


def _pushed(jobs: Socket, found: Socket, workers: int, seconds: float, rate: float) -> list[float]:
    come: set[str] = set()
    deadline = time.monotonic() + _START_LIMIT_S
    while len(come) < workers:
        if (parts := found.receive(timeout_ms=100)) is not None:
            come.add(unpack(Ready, parts[1]).sender)
        if time.monotonic() > deadline:
            raise RuntimeError("the workers did not come")
    source = _Source(seconds, rate)
    poller = Poller((found,))
    newest: int | None = None  # the source keeps the newest frame for a queue that has room
    while not source.over:
        poller.wait(min(1.0, source.wait_ms()))
        newest = source.frame() or newest
        if newest is not None and jobs.send([b"job", *source.job(newest)]):
            newest = None
        while (parts := found.receive()) is not None:
            if kind_of(bytes(parts[0])) is DetectionFinding:
                source.result(unpack(DetectionFinding, parts[1]).job)
    return source.ages_ms


# --- the side that works ---------------------------------------------------------------------------------------------


def work(way: str, name: str, wait_ms: str, jobs_at: str, findings_at: str) -> None:
    """A worker: take a job, wait, answer; until it is killed."""
    pulled = way == "pulled"
    found = Socket(CHANNELS["findings"], findings_at, "push", bind=False)
    jobs = Socket(_channel(way), jobs_at, "sub" if pulled else "pull", bind=False)
    if pulled:
        jobs.subscribe(job_topic(name))
    last, said_at = -1, 0.0
    while True:
        if time.monotonic() - said_at > 0.5:
            said_at = time.monotonic()
            ready = Ready(sender=name, pool="detection", last_job=last)
            found.send([ready.kind.encode(), pack(ready)], timeout_ms=500)
        if (parts := jobs.receive(timeout_ms=100)) is None:
            continue
        last = unpack(DetectionJob, parts[1]).job
        time.sleep(float(wait_ms) / 1e3)
        finding = DetectionFinding(sender=name, job=last, work_ms=float(wait_ms))
        found.send([finding.kind.encode(), pack(finding)], timeout_ms=500)
        said_at = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
