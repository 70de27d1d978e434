"""Mien against the limit: what the models alone cost on the same cores, measured in the same run, on the crowd scene.

    python bench/limit.py [--seconds 5] [--rounds 5] [--profile]

The limit is the frames a second of one process a core that does nothing but compute (``bench/bare.py``): detection,
expression, identity as often as Mien asked for it, and the JPEG of the preview. Once with a look at the whole picture
in every frame, and once with the looks that Mien gave: around the faces of the last frame, at everything every so
often. Of each, two limits are given: ``models`` counts whole calls (a picture in, faces out), ``networks`` only the
time inside of networks, and the JPEG. Mien runs whole, as ``launch.py`` starts it, watched by a viewer, its frames
given as fast as they are taken (``bench/feeding.py``).

Latency: at the pace of a camera, Mien's from a picture to its result at a subscriber, less detection, crops and
expression one after the other in a bare process at the same pace.

Share and latency are compared within each round; the summary gives the median of the rounds, the lowest and the
highest, once against each kind of looks: like for like are the looks that Mien gave. The bench's own process plays
camera and viewer on the same cores: what it takes is a row of its own, and counts in ``share_of_work``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
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
from bench.rivals import EVERY_FRAME, awake, mien_stages, resume, resume_all, stop
from bench.watching import Watcher
from common import crowd
from common.transport import terminate

SHARE, EXTRA_MS = 0.85, 8.0  # what is aimed at
PICTURES = 150
PROFILED = ("bus", "conductor", "detection", "identity", "expression", "preview")
PACE = 30.0  # frames a second, for latency: a camera's
LOOKS = ("the whole picture in every frame", "the looks that Mien gave")
COUNTED = ("identities", "detections", "whole", "previews")


def _calls_ms(answer: dict[str, Any]) -> float:
    return sum(float(answer["spent_ms"].get(name, 0.0)) for name in MODELS)


def _networks_ms(answer: dict[str, Any]) -> float:
    inside = sum(float(answer["inference_ms"].get(name, 0.0)) for name in MODELS)
    return inside + float(answer["spent_ms"].get("jpeg", 0.0))


# what the models alone take for a frame, of one process and round, ms
LIMITS: dict[str, Callable[[dict[str, Any]], float]] = {
    "models (whole calls)": _calls_ms,
    "networks and JPEG only": _networks_ms,
}


@dataclass(slots=True)
class Watched:
    """Mien while it was fed."""

    fed: list[Fed] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by pool
    own_cpu_s: float = 0.0  # of the bench's process: camera and viewer
    identities: int = 0  # faces that identity looked at
    detections: int = 0
    whole: int = 0  # of them, looks at the whole picture
    previews: int = 0

    def asked(self, looks: str) -> dict[str, float]:
        """What the models alone shall do for a frame."""
        return {
            "identity": self.identities / self.frames,
            "jpeg": min(1.0, self.previews / self.frames),
            "whole": 1.0 if looks == LOOKS[0] else _whole(self),
        }

    @property
    def frames(self) -> int:
        return max(sum(len(fed.results) for fed in self.fed), 1)


def _whole(watched: Watched) -> float:
    return watched.whole / max(watched.detections, 1)


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=(os.cpu_count() or 2) + 1, help="frames under way in Mien")
    parser.add_argument("--profile", action="store_true", help="also where the processes spend their time (py-spy)")
    given = parser.parse_args(arguments)
    cores = os.cpu_count() or 1
    pictures = pictures_of(crowd.crowd_video(), PICTURES)
    full, paced = Watched(), Watched()
    bare: dict[str, list[list[dict[str, Any]]]] = {looks: [] for looks in LOOKS}
    bare_paced: dict[str, list[dict[str, Any]]] = {looks: [] for looks in LOOKS}
    profile: Report | None = None
    report = Report("limit", "Mien on the crowd scene against what the models alone allow on the same cores")
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        np.save(folder / "crowd.npy", np.stack(pictures))
        with ExitStack() as stack:
            alone = BareProcesses(folder / "crowd.npy", cores)
            stack.callback(alone.close)
            running = stack.enter_context(Running(configured(folder, expression=EVERY_FRAME), only=mien_stages()))
            camera = stack.enter_context(Feeding(running.config, "cam0", pictures))
            camera.feed(4.0, fewest=60)
            with stack.enter_context(_awake_at_the_end(running)), Watcher(running) as watcher:
                for way in in_turn(("mien", "bare", "mien, paced", "bare, paced"), given.rounds):
                    if way.startswith("mien"):
                        into, rate = (full, None) if way == "mien" else (paced, PACE)
                        with awake(running):
                            _go(running, camera, watcher, given, rate, into)
                        continue
                    for looks in LOOKS:
                        if way == "bare":
                            answers = alone.go(given.seconds, count=cores, rate=None, **full.asked(looks))
                            bare[looks].append(answers)
                        else:
                            bare_paced[looks] += alone.go(given.seconds, count=1, rate=PACE, **paced.asked(looks))
                if given.profile:
                    with awake(running), profiled.temporary() as place:
                        hot = {name: pid for name, pid in running.pids().items() if name.partition(".")[0] in PROFILED}
                        begun = profiled.start(hot, given.seconds, Path(place))
                        camera.feed(given.seconds + 2)
                        profile = Report("limit", "")
                        profiled.finish(profile, begun, Path(place))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report.settings = {
        "seconds": given.seconds, "rounds": given.rounds, "cores": cores, "in_flight": given.in_flight,
        "precision": ", ".join(f"{stage} {what}" for stage, what in sorted(running.precision.items())) or "not said",
    }  # fmt: skip
    summary(report, full, paced, bare, bare_paced)
    if profile is not None:
        report.tables |= profile.tables
        report.notes += profile.notes
    report.show()
    report.keep()
    return 0


def _go(
    running: Running, camera: Feeding, watcher: Watcher, given: argparse.Namespace, rate: float | None, into: Watched
) -> None:
    camera.in_flight = given.in_flight
    camera.feed(0.5, rate=rate)
    before, own = usage(running.pids(), memory=False), time.process_time()
    counted = {name: getattr(watcher, name) for name in COUNTED}
    into.fed.append(camera.feed(given.seconds, rate=rate))
    after: Usage = usage(running.pids(), memory=False)
    into.own_cpu_s += time.process_time() - own
    for name, spent in by_pool(after.cpu_since(before)).items():
        into.cpu_s[name] += spent
    for name, count in counted.items():
        setattr(into, name, getattr(into, name) + getattr(watcher, name) - count)


def _awake_at_the_end(running: Running) -> ExitStack:
    stack = ExitStack()
    stack.callback(resume_all, running)
    return stack


def compared(
    report: Report,
    looks: str,
    full: Watched,
    paced: Watched,
    bare: list[list[dict[str, Any]]],
    bare_paced: list[dict[str, Any]],
) -> None:
    """Write the rows of the summary for one kind of looks: what each round says by itself."""
    figures: dict[str, tuple[list[float], float]] = {}
    for name, cost_of in LIMITS.items():
        shares = [
            fed.rate * median(cost_of(answer) for answer in answers) / (1e3 * len(answers))
            for fed, answers in zip(full.fed, bare, strict=True)
        ]
        figures[f"share of what {name} allow"] = (shares, SHARE)
    extra = [fed.latency(0.5) - answer["path_p50_ms"] for fed, answer in zip(paced.fed, bare_paced, strict=True)]
    figures[f"extra latency (p50) at {PACE:.0f} frames/s, ms"] = (extra, EXTRA_MS)
    for name, (values, aim) in figures.items():
        middle = median(values)
        reached = middle <= aim if values is extra else middle >= aim
        report.add(
            "summary", looks=looks, figure=name, median=middle, lowest=min(values), highest=max(values), aim=aim,
            reached="yes" if reached else "no",
        )  # fmt: skip


def summary(
    report: Report,
    full: Watched,
    paced: Watched,
    bare: dict[str, list[list[dict[str, Any]]]],
    bare_paced: dict[str, list[dict[str, Any]]],
) -> None:
    """Write the tables."""
    for looks in LOOKS:
        compared(report, looks, full, paced, bare[looks], bare_paced[looks])
    mien = median(fed.rate for fed in full.fed)
    all_ms = (sum(full.cpu_s.values()) + full.own_cpu_s) / full.frames * 1e3
    round_trips = [value for fed in paced.fed for value in fed.round_trips_ms]
    steps: dict[str, dict[str, float]] = {}
    for looks in LOOKS:
        rounds = [answer for answers in bare[looks] for answer in answers]
        names = list(dict.fromkeys(name for answer in rounds for name in answer["spent_ms"]))
        whole, inside = (
            {name: median(answer[kind].get(name, 0.0) for answer in rounds) for name in names}
            for kind in ("spent_ms", "inference_ms")
        )
        cores = len(bare[looks][0])
        for name, cost_of in LIMITS.items():
            cost = median(cost_of(answer) for answer in rounds)
            report.add(
                "frames a second", looks=looks, limit=name, ms_a_frame=cost, limit_frames_s=1e3 * cores / cost,
                mien_frames_s=mien, share_of_work=cost / all_ms,
            )  # fmt: skip
        report.add(
            f"latency at {PACE:.0f} frames/s, ms", looks=looks, mien_p50=percentile(round_trips, 0.5),
            mien_p95=percentile(round_trips, 0.95),
            bare_path_p50=median(answer["path_p50_ms"] for answer in bare_paced[looks]),
            bare_path_p95=median(answer["path_p95_ms"] for answer in bare_paced[looks]),
            full_speed_p50=percentile([value for fed in full.fed for value in fed.round_trips_ms], 0.5),
        )  # fmt: skip
        for name in names:
            report.add(
                "the models alone, ms of processor time a frame", looks=looks, step=name,
                counts="yes" if name in MODELS else "no", call=whole[name], in_networks=inside[name],
            )  # fmt: skip
        steps[looks] = {name: whole[name] for name in names if name in MODELS}
    for name, spent in sorted(full.cpu_s.items(), key=lambda item: -item[1]):
        report.add(
            "Mien, ms of processor time a frame", process=name, full_speed=spent / full.frames * 1e3,
            at_pace=paced.cpu_s.get(name, 0.0) / paced.frames * 1e3,
        )  # fmt: skip
    for name, full_s, paced_s in (
        ("total", sum(full.cpu_s.values()), sum(paced.cpu_s.values())),
        ("the bench: camera and viewer", full.own_cpu_s, paced.own_cpu_s),
    ):
        report.add(
            "Mien, ms of processor time a frame", process=name, full_speed=full_s / full.frames * 1e3,
            at_pace=paced_s / paced.frames * 1e3,
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
        f"each frame: {full.identities / full.frames:.2f} faces looked at by identity, "
        f"{full.previews / full.frames:.2f} pictures encoded, the whole picture looked at in {_whole(full):.2f} of "
        f"them at full speed and in {_whole(paced):.2f} at pace, "
        f"{sum(len(r.faces) for f in full.fed for _, r in f.results) / full.frames:.1f} faces; "
        f"{sum(fed.dropped for fed in full.fed)} frames dropped."
    )
    report.notes.append(
        "summary: like for like are the looks that Mien gave; with a look at the whole picture in every frame the "
        "models alone have more to do than Mien had. share_of_work: of processor time, the bench's camera and viewer "
        "counted: what the share would be if no core ever waited."
    )
    report.figures["limit"] = lambda file: plots.bars(
        file,
        "Processor time a frame, crowd scene",
        {
            **{f"models alone, {looks}": spent for looks, spent in steps.items()},
            "Mien": {name: spent / full.frames * 1e3 for name, spent in full.cpu_s.items()},
        },
        y="ms",
    )


if __name__ == "__main__":
    sys.exit(main())
