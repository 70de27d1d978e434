"""The whole pipeline, live: rate, latency, recall, wrong ids, processor time and memory by process, time to the start.

    python bench/pipeline.py [--source demo|demo:crowd|FILE] [--seconds 20] [--workers detection=2,…]

It runs as ``python launch.py --headless`` does and looks at it as anybody can, by subscribing. ``demo`` is the sample
clip played at 640×360 and 30 frames/s. With and without somebody who watches the preview, in turn.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, Usage, by_pool, in_turn, median, percentile, usage
from bench.truth import Found, score
from common import crowd, media, options
from common.analyse import private_endpoints
from common.config import load
from common.messages import Result, Stats
from common.news import NewsReader
from common.plan import plan
from common.rundir import RunDir
from common.settings import Config
from common.supervisor import Supervisor
from common.transport import Socket, opened, terminate

RATE = 30.0
WARM_UP_S = 3.0
FIRST_RESULT_LIMIT_S = 120.0
WAYS = ("unwatched", "watched")


@dataclass(slots=True)
class Phase:
    """What was seen while nothing was changed."""

    way: str
    results: list[tuple[float, Result]] = field(default_factory=list)  # when it arrived (unix), and what
    stats: dict[str, list[Stats]] = field(default_factory=lambda: defaultdict(list))  # by sender
    before: Usage | None = None
    after: Usage | None = None
    previews: int = 0

    @property
    def seconds(self) -> float:
        assert self.before is not None and self.after is not None
        return self.after.at - self.before.at

    @property
    def analysed(self) -> list[Result]:
        return [result for _, result in self.results if result.analysed]

    def cpu_s(self, figure: str) -> dict[str, float]:
        """Return processor seconds by stage, as the stages count them, brought to the length of the phase.

        ``model_cpu_s``: in networks; ``source_cpu_s``: in the source, which decodes the video.
        """
        spent: dict[str, float] = defaultdict(float)
        for said in self.stats.values():
            if len(said) > 1 and figure in said[0].detail:
                grown = float(said[-1].detail[figure]) - float(said[0].detail[figure])
                spent[said[0].stage] += grown / (said[-1].at - said[0].at) * self.seconds
        return spent


class Running:
    """The pipeline (or ``only`` some stages), started by its own supervisor in a thread; ends with the block."""

    def __init__(self, config: Config, *, only: tuple[str, ...] = ()) -> None:
        self.config = config
        self._only = only
        self.precision: dict[str, str] = {}
        self.began = 0.0
        self._place = RunDir(config)
        self._stop = threading.Event()
        self._supervisor: Supervisor | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def pids(self) -> dict[str, int]:
        """Return the processes by name."""
        children = self._supervisor.children if self._supervisor else []
        return {child.spec.name: child.pid for child in children if child.pid is not None}

    def __enter__(self) -> Running:
        self._place.__enter__()
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._place.__exit__(None, None, None)

    def _run(self) -> None:
        specs = plan(self.config, only=self._only, screen=False)
        self._supervisor = Supervisor(self.config, specs, config_file=self._place.config_file, say=self._hear)
        self._supervisor.run(self._stop)
        if self._supervisor.failure:
            print(self._supervisor.failure, file=sys.stderr)

    def _hear(self, line: str) -> None:
        words = line.split()
        if "ready (" in line and len(words) > 2:
            self.precision[words[1].removeprefix("mien.")] = line.rpartition("(")[2].rstrip(")")
        if any(mark in line for mark in (" WARNING ", " ERROR ", "again", "FAILED")):
            print(line, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", default="demo", help="demo, demo:crowd, or a file")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, each way")
    parser.add_argument("--rounds", type=int, default=2, help="changes between unwatched and watched")
    parser.add_argument("--workers", help="as of launch.py")
    parser.add_argument("--config", type=Path, help="as of launch.py")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        config = configured(given, folder)
        with Running(config) as running:
            first_s, phases, usage_mb = observe(running, given.seconds / given.rounds, given.rounds)
        report = summary(given, phases, first_s, usage_mb, running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report.show()
    print(f"kept in {report.save()}")
    return 0


def configured(given: argparse.Namespace, folder: Path) -> Config:
    """Return the default configuration, live, in a private run directory."""
    overrides = options.overrides_of(argparse.Namespace(workers=given.workers))
    config = load(given.config, overrides=overrides)
    if given.source == "demo:crowd":
        crowd.crowd_video()
    needed_s = 2 * given.seconds + FIRST_RESULT_LIMIT_S / 2
    source = str(demo_clip(needed_s)) if given.source == "demo" else given.source
    return Config.model_validate(
        config.model_dump()
        | {"run_dir": folder, "cameras": {"cam0": {"source": source}}, "endpoints": private_endpoints(folder)}
        | {"endpoints": private_endpoints(folder) | {"archive": None}}
    )


def demo_clip(seconds: float, *, width: int = 640, height: int = 360, rate: float = RATE) -> Path:
    """Return the sample clip at 640×360 and 30 frames/s, or as asked for, repeated for so long; made once."""
    target = media.data_dir() / "bench" / f"demo-{width}x{height}-{rate:g}-{seconds:.0f}s.mp4"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.stem}.part.mp4")
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-stream_loop", "-1",
            "-i", str(media.sample("woman.mp4")), "-vf", f"scale={width}:{height},setpts=N/{rate:g}/TB", "-r",
            f"{rate:g}",
            "-t", f"{seconds:.0f}", "-an", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", str(part),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        part.replace(target)
    return target


def observe(running: Running, phase_s: float, rounds: int) -> tuple[float, list[Phase], dict[str, float]]:
    """Return the time to the first result, what was seen in each phase, and the memory by process at the end."""
    reader = NewsReader(running.config, ("results.", "stats."))
    try:
        starting = Phase("starting")
        deadline = running.began + FIRST_RESULT_LIMIT_S
        while not starting.analysed:
            _listen(reader, None, starting, 0.05)
            if time.monotonic() > deadline or not running._thread.is_alive():
                raise SystemExit(f"no result within {time.monotonic() - running.began:.0f} s")
        first_s = time.monotonic() - running.began
        _listen(reader, None, starting, WARM_UP_S)
        phases: list[Phase] = []
        for way in in_turn(WAYS, rounds):
            watcher: Socket | None = None
            if way == "watched":
                watcher = opened("previews", running.config.endpoint("previews"), "sub")
                watcher.subscribe(b"preview.")
            phase = Phase(way)
            _listen(reader, watcher, starting, 1.0)  # until the change has come through
            phase.before = usage(running.pids(), memory=False)
            _listen(reader, watcher, phase, phase_s)
            phase.after = usage(running.pids(), memory=False)
            phases.append(phase)
            if watcher is not None:
                watcher.close()
        return first_s, phases, usage(running.pids()).memory_mb
    finally:
        reader.close()


def _listen(reader: NewsReader, watcher: Socket | None, phase: Phase, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        for _, message in reader.read(timeout_ms=max(1, int(min(left, 0.02) * 1e3))):
            if isinstance(message, Result):
                phase.results.append((time.time(), message))
            elif isinstance(message, Stats):
                phase.stats[message.sender].append(message)
        while watcher is not None and watcher.receive() is not None:
            phase.previews += 1


def summary(
    given: argparse.Namespace, phases: list[Phase], first_s: float, memory_mb: dict[str, float], running: Running
) -> Report:
    """Return the tables."""
    report = Report("pipeline", f"the whole pipeline, live, on {given.source}")
    workers = running.config.workers
    report.settings = {
        "seconds": given.seconds,
        "workers": f"detection {workers.detection}, identity {workers.identity}, expression {workers.expression}",
        "precision": ", ".join(f"{stage} {what}" for stage, what in sorted(running.precision.items())) or "not said",
        "first_result_s": round(first_s, 2),
    }
    for way in WAYS:
        _add_way(report, way, [phase for phase in phases if phase.way == way])
    if given.source == "demo:crowd":
        _add_truth(report, phases)
    for name, value in sorted(by_pool(memory_mb).items()):
        report.add("memory, MB (proportional set size)", process=name, all=value, each=value / _count(memory_mb, name))
    report.add("memory, MB (proportional set size)", process="total", all=sum(memory_mb.values()), each=None)
    return report


def _add_way(report: Report, way: str, phases: list[Phase]) -> None:
    results = [entry for phase in phases for entry in phase.results if entry[1].analysed]
    seconds = sum(phase.seconds for phase in phases)
    shown = sum(_due(phase) for phase in phases)
    latencies = [result.latency_ms for _, result in results]
    faces = [face for _, result in results for face in result.faces]
    frames = max(len(results), 1)
    late = sum(_grown(phase, "late_expressions") for phase in phases)
    report.add(
        "results", way=way, analysed_s=len(results) / seconds, of_frames=len(results) / max(shown, 1),
        p50_ms=percentile(latencies, 0.5), p95_ms=percentile(latencies, 0.95), p99_ms=percentile(latencies, 0.99),
        arrival_p95_ms=percentile([(at - result.captured_at) * 1e3 for at, result in results], 0.95),
        faces=len(faces) / frames, pending=sum(face.expression.status == "pending" for face in faces) / frames,
        late_expressions=late, ids=len({face.track for face in faces}),
        previews_s=sum(phase.previews for phase in phases) / seconds,
    )  # fmt: skip
    cpu: dict[str, float] = defaultdict(float)
    model: dict[str, float] = defaultdict(float)
    source: dict[str, float] = defaultdict(float)
    for phase in phases:
        assert phase.before is not None and phase.after is not None
        for name, spent in by_pool(phase.after.cpu_since(phase.before)).items():
            cpu[name] += spent
        for name, spent in phase.cpu_s("model_cpu_s").items():
            model[name] += spent
        for name, spent in phase.cpu_s("source_cpu_s").items():
            source[name] += spent
    for name, spent in sorted(cpu.items()):
        _add_cpu(report, way, name, spent, model.get(name, 0.0), source.get(name, 0.0), frames, seconds)
    _add_cpu(report, way, "total", sum(cpu.values()), sum(model.values()), sum(source.values()), frames, seconds)
    previews = [s.p50_ms for phase in phases for said in phase.stats.values() for s in said if s.stage == "preview"]
    report.notes.append(f"preview, {way}: {median(previews):.2f} ms a picture (its own measure, JPEG and sending)")


def _add_cpu(
    report: Report, way: str, name: str, spent: float, model: float, source: float, frames: int, seconds: float
) -> None:
    report.add(
        "processor time, ms a frame", way=way, process=name, all=spent / frames * 1e3,
        inference=model / frames * 1e3, source=source / frames * 1e3, rest=(spent - model - source) / frames * 1e3,
        cores=spent / seconds,
    )  # fmt: skip


def _add_truth(report: Report, phases: list[Phase]) -> None:
    """Score each round of the looped scene by itself."""
    truth = crowd.truth()
    rounds: dict[int, dict[int, list[Found]]] = defaultdict(dict)
    for phase in phases:
        for result in phase.analysed:
            lap, frame = divmod(round(result.media_time_s * RATE), len(truth))
            rounds[lap][frame] = [(face.box, face.track) for face in result.faces]
    scores = [score(results, truth) for results in rounds.values()]
    expected, found = sum(s.expected for s in scores), sum(s.found for s in scores)
    report.add(
        "against the truth (faces of at least 40 px, not hidden, not turned away)",
        frames=sum(s.frames for s in scores), recall=found / max(expected, 1), surplus=sum(s.surplus for s in scores),
        ids_that_moved=sum(s.id_switches for s in scores),
        ids_a_person=median([float(ids) for s in scores for ids in s.ids_per_person.values() if ids]),
        most_ids=max((max(s.ids_per_person.values(), default=0) for s in scores), default=0),
    )  # fmt: skip


def _due(phase: Phase) -> float:
    """How many frames the source showed between the first and the last result."""
    times = [result.media_time_s for result in phase.analysed]
    return round((max(times) - min(times)) * RATE) + 1 if times else 0


def _grown(phase: Phase, name: str) -> float:
    said = [s.detail[name] for stats in phase.stats.values() for s in stats if name in s.detail]
    return float(said[-1]) - float(said[0]) if said else 0.0


def _count(figures: dict[str, float], pool: str) -> int:
    return sum(name.partition(".")[0] == pool for name in figures)


if __name__ == "__main__":
    sys.exit(main())
