"""How many cameras one conductor serves: a real conductor and a real bus, cameras that repeat one picture, and workers
that wait instead of computing, so that the conductor is what is measured.

    python bench/cameras.py [--cameras 1,2,4,8,16] [--rate 30] [--seconds 5] [--wait-ms 20] [--faces 1]

There are always enough workers. A conductor is full when its processor time comes near a whole core: from then on
frames are replaced by newer ones before anybody looks at them, evenly among the cameras.
"""

from __future__ import annotations

import argparse
import heapq
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, percentile
from common import config as configuration
from common.analyse import private_endpoints
from common.channels import CHANNELS
from common.child import environment
from common.messages import (
    Clock,
    DetectionFinding,
    DetectionJob,
    ExpressionFinding,
    ExpressionJob,
    Frame,
    Message,
    Ready,
    Result,
    pack,
    unpack,
)
from common.news import NewsReader
from common.settings import Config
from common.transport import Socket, terminate
from common.worker import job_topic

WIDTH, HEIGHT = 160, 90  # real pictures travel through shared memory: what is measured is not the copying of these
CROP = 48
_START_S = 180.0  # of everything, on a machine that has other work


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of some seconds.

    Attributes:
        results: analysed frames by camera.
        cpu: of the conductor, in cores.
        p50_ms, p99_ms: from the capture of a frame to its result.
    """

    seconds: float
    results: dict[str, int]
    cpu: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        return sum(self.results.values()) / self.seconds

    @property
    def evenness(self) -> float:
        """What the camera served least got of what the one served most got."""
        return min(self.results.values()) / max(1, *self.results.values())


def measure(cameras: int, *, rate: float, seconds: float, wait_ms: float, workers: int, faces: int = 1) -> Figures:
    """Serve some cameras for some seconds, with ``workers`` that take ``wait_ms`` for a frame."""
    with tempfile.TemporaryDirectory(prefix="mien-") as name:
        config = _config(Path(name), cameras)
        here = str(Path(__file__).resolve())
        ends = [config.endpoint(channel) for channel in ("jobs", "findings", "frames")]
        commands = [[sys.executable, "-m", f"stages.{stage}", "--config", str(Path(name) / "config.json")]
                    for stage in ("bus", "conductor")]  # fmt: skip
        for pool, count, wait in (("detection", workers, wait_ms), ("expression", max(2, workers), 5.0)):
            commands.append([sys.executable, here, "--work", pool, str(count), str(wait), str(faces), *ends[:2]])
        commands.append([sys.executable, here, "--give", str(cameras), str(rate), ends[2]])
        reader = NewsReader(config, ("results.",))
        processes = [subprocess.Popen(one, env=environment(None), stdin=subprocess.DEVNULL) for one in commands]
        try:
            return _counted(config, reader, psutil.Process(processes[1].pid), seconds)
        finally:
            reader.close()
            for process in processes:
                process.kill()
                process.wait()


def _config(folder: Path, cameras: int) -> Config:
    ends = {channel: end for channel, end in private_endpoints(folder).items() if channel != "archive"}
    made = configuration.load(
        overrides={
            "run_dir": str(folder),
            "cameras": {f"cam{number}": {} for number in range(cameras)},
            "endpoints": ends,
            "storage": {"data_dir": str(folder / "data")},
            "pipeline": {"first_track": 1},
            "identity": {"remember_unknown": False},
        },
        environment={},
    )
    configuration.save(made, folder / "config.json")
    return made


def _counted(config: Config, reader: NewsReader, conductor: psutil.Process, seconds: float) -> Figures:
    waiting, deadline = set(config.cameras), time.monotonic() + _START_S
    while waiting:
        waiting -= {topic.removeprefix("results.") for topic, _ in reader.read(timeout_ms=100)}
        if time.monotonic() > deadline:
            raise RuntimeError(f"no results came of {', '.join(sorted(waiting))}")
    results, latencies = Counter(dict.fromkeys(config.cameras, 0)), []
    began, used = time.monotonic(), sum(conductor.cpu_times()[:2])
    while time.monotonic() < began + seconds:
        for _, message in reader.read(timeout_ms=50):
            if isinstance(message, Result) and message.analysed:
                results[message.camera] += 1
                latencies.append(message.latency_ms)
    lasted = time.monotonic() - began
    cpu = (sum(conductor.cpu_times()[:2]) - used) / lasted
    return Figures(lasted, dict(results), cpu, percentile(latencies, 0.5), percentile(latencies, 0.99))


# --- the processes around the conductor ------------------------------------------------------------------------------


def give(cameras: int, rate: float, frames_at: str) -> None:
    """Be some cameras, whose pictures come evenly spread; until killed."""
    sockets = [Socket(CHANNELS["frames"], frames_at, "push", bind=False) for _ in range(cameras)]
    pixels, clock, run = np.zeros((HEIGHT, WIDTH, 3), np.uint8), Clock(host="bench", monotonic_ns=0), 1
    began, number = time.monotonic(), 0
    while True:
        seq, camera = divmod(number, cameras)
        due = began + number / (rate * cameras)
        time.sleep(max(0.0, due - time.monotonic()))
        frame = Frame(
            sender=f"capture.bench.{camera}", camera=f"cam{camera}", run=run, seq=seq, captured_at=time.time(),
            width=WIDTH, height=HEIGHT, age_ms=0.0, clock=clock, media_time_s=seq / rate,
        )  # fmt: skip
        sockets[camera].send([frame.kind.encode(), pack(frame), pixels])
        number += 1


def work(pool: str, count: int, wait_ms: float, faces: int, jobs_at: str, findings_at: str) -> None:
    """Be some workers of a pool, each of which takes its time for a job; until killed."""
    found = Socket(CHANNELS["findings"], findings_at, "push", bind=False)
    jobs = Socket(CHANNELS["jobs"], jobs_at, "sub", bind=False)
    names = [f"{pool}.bench.{number}" for number in range(count)]
    for name in names:
        jobs.subscribe(job_topic(name))
    last = dict.fromkeys(names, -1)
    said = dict.fromkeys(names, 0.0)
    due: list[tuple[float, int, str, Any]] = []
    while True:
        now = time.monotonic()
        for name in names:
            if now - said[name] > 0.5:
                said[name] = now
                _send(found, Ready(sender=name, pool=pool, last_job=last[name]), [])  # type: ignore[arg-type]
        until = min(due[0][0] if due else now + 0.1, now + 0.1)
        if (parts := jobs.receive(timeout_ms=max(1, int((until - now) * 1e3)))) is not None:
            name = bytes(parts[0])[:-1].decode()
            job = unpack(DetectionJob if pool == "detection" else ExpressionJob, parts[1])
            last[name] = job.job
            heapq.heappush(due, (time.monotonic() + wait_ms / 1e3, job.job, name, job))
        while due and due[0][0] <= time.monotonic() + 0.0005:
            _, _, name, job = heapq.heappop(due)
            said[name] = time.monotonic()
            _send(found, *_answer(pool, name, job, wait_ms, faces))


def _answer(pool: str, name: str, job: Any, wait_ms: float, faces: int) -> tuple[Message, list[Any]]:
    if pool == "expression":
        rows = np.full((job.count, 7), 1 / 7, np.float32)
        return ExpressionFinding(sender=name, job=job.job, work_ms=wait_ms, count=job.count), [rows]
    boxes = np.array([[20.0 * face, 20, 18, 18] for face in range(faces)], np.float32).reshape(faces, 4)
    landmarks = np.repeat((boxes[:, :2] + boxes[:, 2:] / 2)[:, None], 5, axis=1)
    finding = DetectionFinding(
        sender=name, job=job.job, work_ms=wait_ms, count=faces, crop_size=CROP, reasons=(None,) * faces
    )
    looks = np.full((faces, 48), 48**-0.5, np.float32)
    scores, qualities = np.full(faces, 0.9, np.float32), np.full((faces, 7), 0.8, np.float32)
    return finding, [boxes, scores, landmarks, qualities, looks, np.zeros((faces, CROP, CROP), np.uint8)]


def _send(found: Socket, message: Message, blobs: list[Any]) -> None:
    found.send([message.kind.encode(), pack(message, blobs), *blobs], timeout_ms=500)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cameras", default="1,2,4,8,16")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second of each camera")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--wait-ms", type=float, default=20.0, help="that a worker takes for a frame")
    parser.add_argument("--faces", type=int, default=1, help="in each picture")
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--give", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        pool, count, wait_ms, faces, jobs_at, findings_at = given.work
        work(pool, int(count), float(wait_ms), int(faces), jobs_at, findings_at)
    if given.give:
        give(int(given.give[0]), float(given.give[1]), given.give[2])
    report = Report("cameras", "cameras that one conductor serves, with workers that wait")
    report.settings = {"frames_s": given.rate, "seconds": given.seconds, "faces": given.faces}
    for cameras in (int(part) for part in given.cameras.split(",")):
        workers = min(64, int(cameras * given.rate * (given.wait_ms + 10) / 1e3) + 2)
        found = measure(
            cameras, rate=given.rate, seconds=given.seconds, wait_ms=given.wait_ms, workers=workers, faces=given.faces
        )
        report.add(
            "one conductor", cameras=cameras, asked_s=cameras * given.rate, results_s=round(found.per_s, 1),
            conductor_cores=round(found.cpu, 2), cpu_ms_a_frame=round(1e3 * found.cpu / max(found.per_s, 1e-9), 2),
            p50_ms=round(found.p50_ms, 1), p99_ms=round(found.p99_ms, 1), least_of_most=round(found.evenness, 2),
        )  # fmt: skip
    report.show()
    print(f"kept in {report.save()}")
    terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
