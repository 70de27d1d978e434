"""What the conductor's own work costs a frame, by number of faces: messages read and checked, dispatch, tracks, names,
smoothing, the result packed. No sockets, no other process.

    python bench/conductor.py [--frames 300] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report
from common.conductor import Conductor
from common.line import Flight
from common.messages import (
    Clock,
    Correction,
    DetectionFinding,
    ExpressionFinding,
    Frame,
    Message,
    Ready,
    Result,
    pack,
    unpack,
)
from common.settings import Config

WIDTH, HEIGHT = 1280, 720
CROP = 48


class Packing:
    """Packs what the conductor decides, as its sockets would."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Message]] = []
        self.results = 0

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        pack(message)
        self.jobs.append((worker, message))

    def result(self, result: Result, flight: Flight) -> None:
        pack(result.model_copy(update={"n": 1}))
        self.results += 1

    def picture(self, result: Result, flight: Flight) -> None:
        pass

    def correction(self, message: Correction) -> None:
        pack(message)

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        pass


def walk(faces: int, frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (N, 4) and appearances (N, 48) of faces that move a little, a pair for each frame."""
    random = np.random.default_rng(0)
    columns = np.linspace(20, WIDTH - 120, max(faces, 1))
    boxes = np.stack([columns, random.uniform(20, HEIGHT - 140, faces or 1), *np.full((2, faces or 1), 90.0)], axis=1)
    looks = random.random((faces or 1, 48)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    found = []
    for _ in range(frames):
        boxes[:, :2] += random.uniform(-1, 1, (len(boxes), 2))
        found.append((boxes[:faces].astype(np.float32), looks[:faces]))
    return found


def measure(faces: int, frames: int, profile: cProfile.Profile | None = None) -> float:
    """Milliseconds of processor time a frame."""
    box = Packing()
    conductor = Conductor(Config(), box, sender="conductor.bench.1", new_track=itertools.count(1).__next__)
    now = time.monotonic()
    for worker, pool in (("detection.a.1", "detection"), ("expression.a.1", "expression")):
        conductor.subscribed(worker, now)
        conductor.ready(Ready(sender=worker, pool=pool, last_job=-1), now)  # type: ignore[arg-type]
    pixels = memoryview(bytes(WIDTH * HEIGHT * 3))
    clock = Clock(host="bench", monotonic_ns=0)
    rows = np.full((faces, 7), 1 / 7, np.float32)
    crops = np.zeros((faces, CROP, CROP), np.uint8)
    used = []
    for seq, (boxes, looks) in enumerate(walk(faces, frames)):
        head = {"sender": "capture.bench.1", "camera": "cam0", "run": 1, "seq": seq, "captured_at": 1.0 + seq / 30}
        frame = pack(
            Frame(**head, width=WIDTH, height=HEIGHT, age_ms=1.0, clock=clock, media_time_s=seq / 30)  # type: ignore[arg-type]
        )
        finding = DetectionFinding(
            sender="detection.a.1", job=0, work_ms=30.0, count=faces, crop_size=CROP, reasons=(None,) * faces
        )
        landmarks = np.repeat((boxes[:, :2] + boxes[:, 2:] / 2)[:, None], 5, axis=1)
        scores, qualities = np.full(faces, 0.9, np.float32), np.full((faces, 7), 0.8, np.float32)
        blobs = [memoryview(array.tobytes()) for array in (boxes, scores, landmarks, qualities, looks, crops)]
        if profile:
            profile.enable()
        began = time.process_time()
        conductor.frame(unpack(Frame, frame), pixels, now)
        while box.jobs:
            worker, job = box.jobs.pop(0)
            if worker.startswith("detection"):
                packed = pack(finding.model_copy(update={"job": job.job}))  # type: ignore[attr-defined]
                conductor.detection(unpack(DetectionFinding, packed), blobs, now)
            else:
                count, number = job.count, job.job  # type: ignore[attr-defined]
                answer = ExpressionFinding(sender="expression.a.1", job=number, work_ms=3.0, count=count)
                part = memoryview(rows[:count].tobytes())
                conductor.expression(unpack(ExpressionFinding, pack(answer)), [part], now)
        used.append((time.process_time() - began) * 1e3)
        if profile:
            profile.disable()
        now += 1 / 30
    if box.results + conductor.counts.rested != frames:  # where nobody is, not every frame is looked at
        raise RuntimeError(f"{box.results} results came of {frames} frames")
    return statistics.median(used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--profile", action="store_true", help="also print where the time goes, with eight faces")
    arguments = parser.parse_args()
    report = Report("conductor", "the conductor's own work a frame", {"frames": arguments.frames})
    for faces in (0, 1, 4, 8, 16):
        report.add(
            "processor time, ms a frame (median)", faces=faces, cpu_ms=round(measure(faces, arguments.frames), 2)
        )
    report.show()
    print(f"kept in {report.save()}")
    if arguments.profile:
        profile = cProfile.Profile()
        measure(8, arguments.frames, profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
