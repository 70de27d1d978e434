"""Mien for hours: does any process grow, does the latency drift, are descriptors left over? ``--hours N``.

A straight line is laid through each process's own memory, and through the latency, by least squares. Beside it stands
what a run of this length cannot tell: twice the line's standard error (neighbouring looks are alike: counted as a
quarter as many), and at least one step of an allocator, 4 MB, or of a busy machine, 2 ms, spread over the run. A run
fails when a slope is above its limit even if that is taken off: minutes show gross leaks, a night shows small ones.
"""

from __future__ import annotations

import argparse
import math
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.launched import Launched
from bench.report import Report, median, percentile
from common import media, options
from common.analyse import private_endpoints
from common.config import load
from common.messages import Result, Stats
from common.news import NewsReader
from common.settings import Config
from common.transport import terminate

MEMORY_MB_H = 1.0  # a process may grow by so much an hour after the warm-up
LATENCY_MS_H = 1.0  # … and the median latency
WARM_UP_SHARE, WARM_UP_S = 0.2, 600.0  # whichever is less
LEAST_SAMPLES = 10
LOADS_WITHIN_S = 180.0
SPARE_DESCRIPTORS = 2
STEP_MB, STEP_MS = 4.0, 2.0
ALIKE = 4  # so many neighbouring looks tell as much as one


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line's rise, an hour, and how far off it may be."""

    an_hour: float
    error: float

    def surely_above(self, limit: float) -> bool:
        """Whether it rises faster than this even if the error is taken off."""
        return self.an_hour - self.error > limit


@dataclass(slots=True)
class Course:
    """What one process has used over time."""

    pid: int
    at_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


def slope(at_s: Sequence[float], values: Sequence[float], step: float) -> Slope:
    """Return the line of least squares through values at times in seconds; an infinite error for fewer than three.

    Args:
        step: a single change of this size is no slope.
    """
    count = len(values)
    if count < 3:
        return Slope(0.0, math.inf)
    middle, mean = sum(at_s) / count, sum(values) / count
    spread = sum((at - middle) ** 2 for at in at_s)
    if spread == 0:
        return Slope(0.0, math.inf)
    rise = sum((at - middle) * (value - mean) for at, value in zip(at_s, values, strict=True)) / spread
    rest = sum((value - mean - rise * (at - middle)) ** 2 for at, value in zip(at_s, values, strict=True))
    error = 2 * math.sqrt(ALIKE * rest / (count - 2) / spread)
    return Slope(rise * 3600, max(error, step / max(at_s[-1] - at_s[0], 1e-9)) * 3600)


def own_mb(process: psutil.Process) -> float:
    """Return the memory that is a process's own, MB: pictures in shared memory are everybody's."""
    full = process.memory_full_info()
    return float(full.uss) / 2**20


def private(given: argparse.Namespace, folder: Path) -> Config:
    """Return the configuration with a run directory, addresses and data of its own: nobody's history is filled."""
    for name in ("samples", "compiled", "crowd"):
        (media.data_dir() / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(media.data_dir() / name)
    media.fetch()
    overrides = options.overrides_of(argparse.Namespace(workers=given.workers))
    settings = load(given.config, overrides=overrides).model_dump(mode="json")
    settings |= {"cameras": {"cam0": {"source": given.source}}, "run_dir": str(folder / "run")}
    settings["endpoints"] = private_endpoints(folder / "run") | {"archive": None}
    settings["storage"]["data_dir"] = str(folder)
    settings["dashboard"]["port"] = free_port()
    return load(overrides=settings, environment={})


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def watch(running: Launched, reader: NewsReader, seconds: float, every_s: float) -> Watched:
    """Look at all processes every few seconds, and at every result, for so long after all of them have loaded."""
    watched = Watched()
    began = next_at = 0.0
    window: list[float] = []
    loaded: set[str] = set()  # stages whose loop turns
    gave_up = time.monotonic() + LOADS_WITHIN_S
    while not began or time.monotonic() < began + seconds:
        for _, message in reader.read(timeout_ms=200):
            if isinstance(message, Result) and message.analysed:
                window.append(message.latency_ms)
            elif isinstance(message, Stats):
                loaded.add(message.stage)
        running.check()
        now = time.monotonic()
        if not began:
            waited = {name.partition(".")[0] for name in running.pids()} - loaded - {"launch"}
            if window and not waited:
                began = next_at = now
            elif now > gave_up:
                what = ", ".join(sorted(waited)) or "a result"
                raise SystemExit(f"still waiting for {what} after three minutes: does 'python launch.py' work here?")
            continue
        if now < next_at:
            continue
        next_at += every_s
        watched.until_s = now - began
        if not window:
            watched.silent_s.append(now - began)
        else:
            watched.latency.append((now - began, median(window), percentile(window, 0.95)))
            watched.results += len(window)
            window.clear()
        for name, pid in running.pids().items():
            try:
                process = psutil.Process(pid)
                course = watched.courses.setdefault(name, Course(pid))
                if course.pid != pid:
                    watched.replaced.append(name)
                    course = watched.courses[name] = Course(pid)
                course.memory_mb.append(own_mb(process))
                course.descriptors.append(process.num_fds() if hasattr(process, "num_fds") else 0)
                course.threads.append(process.num_threads())
                course.at_s.append(now - began)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return watched


@dataclass(slots=True)
class Watched:
    """What came of a run: latency is (seconds since the beginning, median ms, p95 ms) of each look."""

    courses: dict[str, Course] = field(default_factory=dict)
    latency: list[tuple[float, float, float]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    results: int = 0
    until_s: float = 0.0  # the last look
    silent_s: list[float] = field(default_factory=list)  # looks before which no result had come


def judged(report: Report, watched: Watched, warm_up_s: float) -> list[str]:
    """Put the figures into the report; return what is wrong."""
    wrong = [f"{name} was replaced" for name in watched.replaced]
    if silent := [at for at in watched.silent_s if at > 0]:
        wrong.append(f"no result came before {len(silent)} looks, the first of them after {silent[0]:.0f} s")
    for name, course in sorted(watched.courses.items()):
        if not course.at_s or course.at_s[-1] < watched.until_s:
            wrong.append(f"{name} was gone at the end")
        first = next((row for row, at in enumerate(course.at_s) if at >= warm_up_s), len(course.at_s))
        memory, descriptors = course.memory_mb[first:], course.descriptors[first:]
        if len(memory) < LEAST_SAMPLES:
            wrong.append(f"{name} was looked at only {len(memory)} times after the warm-up")
            continue
        line = slope(course.at_s[first:], memory, STEP_MB)
        half = len(descriptors) // 2
        more = max(descriptors[half:]) - max(descriptors[:half])
        report.add(
            "Processes, after the warm-up",
            process=name,
            looks=len(memory),
            memory_mb=median(memory),
            growth_mb_h=line.an_hour,
            give_or_take=line.error,
            descriptors=max(descriptors),
            more_descriptors=more,
            threads=max(course.threads[first:]),
        )
        if line.surely_above(MEMORY_MB_H):
            wrong.append(f"{name} grows by {line.an_hour:.1f} ± {line.error:.1f} MB an hour")
        if more > SPARE_DESCRIPTORS:
            wrong.append(f"{name} has {more} descriptors more in the second half than in the first")
    late = [look for look in watched.latency if look[0] >= warm_up_s]
    line = slope([at for at, _, _ in late], [middle for _, middle, _ in late], STEP_MS)
    report.add(
        "Latency, after the warm-up",
        results=watched.results,
        p50_ms=median(middle for _, middle, _ in late),
        p95_ms=median(high for _, _, high in late),
        drift_ms_h=line.an_hour,
        give_or_take=line.error,
    )
    if line.surely_above(LATENCY_MS_H):
        wrong.append(f"the latency drifts by {line.an_hour:.1f} ± {line.error:.1f} ms an hour")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and return the exit code: 1 when something grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hours", type=float, default=1.0, help="after everything has loaded")
    parser.add_argument("--source", default="demo", help="demo, demo:crowd, or a file")
    parser.add_argument("--every", type=float, default=None, metavar="SECONDS", help="between two looks (at most 10)")
    parser.add_argument("--workers", help="as of launch.py")
    parser.add_argument("--config", type=Path, help="as of launch.py")
    given = parser.parse_args(arguments)
    if not 0 < given.hours < 10_000:
        parser.error("--hours is a number above 0")
    seconds = given.hours * 3600
    warm_up_s = min(WARM_UP_SHARE * seconds, WARM_UP_S)
    every_s = given.every or min(10.0, max(0.5, (seconds - warm_up_s) / 60))
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        config = private(given, folder)
        with Launched(config, folder) as running:
            reader = NewsReader(config, ("results.", "stats."))
            try:
                watched = watch(running, reader, seconds, every_s)
            finally:
                reader.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report = Report(
        "soak",
        "memory, descriptors and latency over time",
        settings={"hours": given.hours, "source": given.source, "every_s": every_s, "warm_up_s": warm_up_s},
    )
    wrong = judged(report, watched, warm_up_s)
    report.notes += [f"WRONG: {one}" for one in wrong] or ["nothing surely grows, drifts or is left over"]
    report.show()
    print(f"kept in {report.save()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
