"""Mien against the limit: what the models alone cost on the same cores, measured in the same run, on the crowd scene.

    python bench/limit.py [--seconds 5] [--rounds 3] [--profile]

The limit is the frames a second of one process a core that does nothing but compute (``bench/bare.py``): detection,
expression, identity as often as Mien asked for it, and the JPEG of the preview. Two limits are given: ``models`` counts
whole calls (a picture in, faces out), ``networks`` only the time inside of networks, and the JPEG. Mien runs whole, as
``launch.py`` starts it, watched by a viewer, its frames given as fast as they are taken (``bench/feeding.py``).

Latency: at the pace of a camera, Mien's from a picture to its result at a subscriber, less
detection, crops and expression one after the other in a bare process at the same pace.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench import plots, profiled
from bench.bare import MODELS
from bench.feeding import Fed, Feeding, configured, pictures_of
from bench.pipeline import Running
from bench.report import ROOT, Report, Usage, by_pool, in_turn, median, percentile, usage
from bench.rivals import awake, mien_stages, resume, resume_all, stop
from common import crowd
from common.instance import instance_of
from common.messages import IdentityJob, unpack
from common.transport import Socket, opened, terminate
from common.worker import job_topic

SHARE, EXTRA_MS = 0.85, 8.0  # what is aimed at
PICTURES = 150
PROFILED = ("bus", "conductor", "detection", "identity", "expression", "preview")
PACE = 30.0  # frames a second, for latency: a camera's


@dataclass(slots=True)
class Watched:
    """Mien while it was fed."""

    fed: list[Fed] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by pool
    looks: int = 0  # of identity
    previews: int = 0

    @property
    def frames(self) -> int:
        return max(sum(len(fed.results) for fed in self.fed), 1)


class Watcher:
    """Takes previews, as a viewer does, and sees which faces identity is asked about, in a thread."""

    def __init__(self, running: Running) -> None:
        config = running.config
        self._previews = opened("previews", config.endpoint("previews"), "sub")
        self._previews.subscribe(b"preview.")
        self._jobs: list[Socket] = []
        for name, pid in running.pids().items():
            if name.startswith("identity."):
                jobs = opened("jobs", config.endpoint("jobs"), "sub")
                jobs.subscribe(job_topic(instance_of("identity", pid)))
                self._jobs.append(jobs)
        self.previews = self.looks = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for socket in (self._previews, *self._jobs):
            socket.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._previews.wait(50)
            while self._previews.receive() is not None:
                self.previews += 1
            for jobs in self._jobs:
                while (parts := jobs.receive()) is not None:
                    self.looks += len(unpack(IdentityJob, parts[1]).shapes)


class BareProcesses:
    """``bench/bare.py``, one a core; stopped while Mien runs."""

    def __init__(self, file: Path, count: int) -> None:
        command = [sys.executable, str(ROOT / "bench" / "bare.py"), str(file)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for process in self._processes:
            self._hear(process)
            stop(process.pid)

    def go(self, seconds: float, *, count: int, rate: float | None, **asked: float) -> list[dict[str, Any]]:
        """Let some of them work at the same time; return what each says."""
        chosen = self._processes[:count]
        for number, process in enumerate(chosen):
            resume(process.pid)
            wanted = {"seconds": seconds, "rate": rate, "offset": number * PICTURES // len(chosen), **asked}
            assert process.stdin is not None
            print(json.dumps(wanted), file=process.stdin, flush=True)
        answers = [json.loads(self._hear(process)) for process in chosen]
        for process in chosen:
            stop(process.pid)
        return answers

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            resume(process.pid)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)

    def _hear(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("a process with the models alone has ended: its message is above")
        return line


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=(os.cpu_count() or 2) + 1, help="frames under way in Mien")
    parser.add_argument("--profile", action="store_true", help="also where the processes spend their time (py-spy)")
    given = parser.parse_args(arguments)
    cores = os.cpu_count() or 1
    pictures = pictures_of(crowd.crowd_video(), PICTURES)
    full, paced = Watched(), Watched()
    bare: list[list[dict[str, Any]]] = []
    bare_paced: list[dict[str, Any]] = []
    report = Report("limit", "Mien on the crowd scene against what the models alone allow on the same cores")
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        np.save(folder / "crowd.npy", np.stack(pictures))
        with ExitStack() as stack:
            alone = BareProcesses(folder / "crowd.npy", cores)
            stack.callback(alone.close)
            running = stack.enter_context(Running(configured(folder), only=mien_stages()))
            camera = stack.enter_context(Feeding(running.config, "cam0", pictures))
            camera.feed(4.0, fewest=60)
            with stack.enter_context(_awake_at_the_end(running)), Watcher(running) as watcher:
                for way in in_turn(("mien", "bare", "mien, paced", "bare, paced"), given.rounds):
                    if way.startswith("mien"):
                        into, rate = (full, None) if way == "mien" else (paced, PACE)
                        with awake(running):
                            _go(running, camera, watcher, given, rate, into)
                        continue
                    asked = {"identity": full.looks / full.frames, "jpeg": min(1.0, full.previews / full.frames)}
                    if way == "bare":
                        bare.append(alone.go(given.seconds, count=cores, rate=None, **asked))
                    else:
                        bare_paced += alone.go(given.seconds, count=1, rate=PACE, **asked)
                if given.profile:
                    with awake(running), profiled.temporary() as place:
                        hot = {name: pid for name, pid in running.pids().items() if name.partition(".")[0] in PROFILED}
                        begun = profiled.start(hot, given.seconds, Path(place))
                        camera.feed(given.seconds + 2)
                        profiled.finish(report, begun, Path(place))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report.settings = {
        "seconds": given.seconds, "rounds": given.rounds, "cores": cores, "in_flight": given.in_flight,
        "precision": ", ".join(f"{stage} {what}" for stage, what in sorted(running.precision.items())) or "not said",
    }  # fmt: skip
    summary(report, full, paced, bare, bare_paced)
    report.show()
    report.keep()
    return 0


def _go(
    running: Running, camera: Feeding, watcher: Watcher, given: argparse.Namespace, rate: float | None, into: Watched
) -> None:
    camera.in_flight = given.in_flight
    camera.feed(0.5, rate=rate)
    before, looks, previews = usage(running.pids(), memory=False), watcher.looks, watcher.previews
    into.fed.append(camera.feed(given.seconds, rate=rate))
    after: Usage = usage(running.pids(), memory=False)
    for name, spent in by_pool(after.cpu_since(before)).items():
        into.cpu_s[name] += spent
    into.looks += watcher.looks - looks
    into.previews += watcher.previews - previews


def _awake_at_the_end(running: Running) -> ExitStack:
    stack = ExitStack()
    stack.callback(resume_all, running)
    return stack


def summary(
    report: Report,
    full: Watched,
    paced: Watched,
    bare: list[list[dict[str, Any]]],
    bare_paced: list[dict[str, Any]],
) -> None:
    """Write the tables."""
    rounds = [answer for answers in bare for answer in answers]

    def each(kind: str, name: str) -> float:
        return median(answer[kind].get(name, 0.0) for answer in rounds)

    steps = list(dict.fromkeys(name for answer in rounds for name in answer["spent_ms"]))
    whole = {name: each("spent_ms", name) for name in steps}
    inside = {name: each("inference_ms", name) for name in steps}
    cores = len(bare[0])
    models_ms = sum(whole.get(name, 0.0) for name in MODELS)
    networks_ms = sum(inside.get(name, 0.0) for name in MODELS) + whole.get("jpeg", 0.0)
    mien = median(fed.rate for fed in full.fed)
    all_ms = sum(full.cpu_s.values()) / full.frames * 1e3
    for name, cost in (("models (whole calls)", models_ms), ("networks and JPEG only", networks_ms)):
        share = mien / (1e3 * cores / cost)
        report.add(
            "frames a second", limit=name, ms_a_frame=cost, limit_frames_s=1e3 * cores / cost, mien_frames_s=mien,
            share=share, aim=SHARE, reached="yes" if share >= SHARE else "no",
            # Of processor time: what the share would be if no core ever waited.
            share_of_work=cost / all_ms,
        )  # fmt: skip
    round_trips = [value for fed in paced.fed for value in fed.round_trips_ms]
    path = median(answer["path_p50_ms"] for answer in bare_paced)
    extra = percentile(round_trips, 0.5) - path
    report.add(
        f"latency at {PACE:.0f} frames/s, ms", mien_p50=percentile(round_trips, 0.5),
        mien_p95=percentile(round_trips, 0.95), bare_path_p50=path,
        bare_path_p95=median(answer["path_p95_ms"] for answer in bare_paced), extra_p50=extra, aim=EXTRA_MS,
        reached="yes" if extra <= EXTRA_MS else "no",
        full_speed_p50=percentile([value for fed in full.fed for value in fed.round_trips_ms], 0.5),
    )  # fmt: skip
    for name in steps:
        report.add(
            "the models alone, ms of processor time a frame", step=name, counts="yes" if name in MODELS else "no",
            call=whole[name], in_networks=inside[name],
        )  # fmt: skip
    for name, spent in sorted(full.cpu_s.items(), key=lambda item: -item[1]):
        report.add(
            "Mien, ms of processor time a frame", process=name, full_speed=spent / full.frames * 1e3,
            at_pace=paced.cpu_s.get(name, 0.0) / paced.frames * 1e3,
        )  # fmt: skip
    report.add(
        "Mien, ms of processor time a frame", process="total", full_speed=all_ms,
        at_pace=sum(paced.cpu_s.values()) / paced.frames * 1e3,
    )  # fmt: skip
    timings: dict[str, list[float]] = defaultdict(list)
    for fed in paced.fed:
        for _, result in fed.results:
            for name, value in result.timings_ms.items():
                timings[name].append(value)
            timings["latency_ms as published"].append(result.latency_ms)
    for name, values in timings.items():
        report.add(
            f"Mien's own account at {PACE:.0f} frames/s, ms", of=name, p50=median(values), p95=percentile(values, 0.95)
        )
    report.notes.append(
        f"each frame: {full.looks / full.frames:.2f} faces looked at by identity, "
        f"{full.previews / full.frames:.2f} pictures encoded, "
        f"{sum(len(r.faces) for f in full.fed for _, r in f.results) / full.frames:.1f} faces; "
        f"{sum(fed.dropped for fed in full.fed)} frames dropped. The bench's own process (camera and viewer) is not in "
        "Mien's processor time, but takes time from it: a camera does, too."
    )
    report.figures["limit"] = lambda file: plots.bars(
        file,
        "Processor time a frame, crowd scene",
        {
            "models alone": {name: whole[name] for name in steps if name in MODELS},
            "Mien": {name: spent / full.frames * 1e3 for name, spent in full.cpu_s.items()},
        },
        y="ms",
    )


if __name__ == "__main__":
    sys.exit(main())
