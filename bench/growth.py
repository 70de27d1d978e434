"""How cost grows with work: faces in a frame, cameras, people known, days of history; a plot each.

    python bench/growth.py [faces|cameras|pipelines|gallery|history …] [--seconds 2]

``faces`` runs the whole pipeline on made-up frames of 1280×720 with so many faces of the sample photographs, as fast as
it goes (``bench/feeding.py``). ``cameras`` is ``bench/cameras.py``: the conductor with workers that wait instead of
computing, pictures of 160×90 and nobody who captures them: what grows there is the conductor's own work. ``pipelines``
is the whole of it, as ``launch.py --headless`` starts it, with cameras that show the demo clip at 320×180 and 10
frames/s: capture, detection and all the rest are real. ``gallery`` is ``bench/galleries.py``: one query against so many
references; a million are found by the index of ``mien[index]``. ``history`` is ``bench/history.py`` for so many days.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from bench import galleries, history, plots
from bench.feeding import Feeding, Picture, configured
from bench.pipeline import Running, demo_clip
from bench.report import Report, by_pool, percentile, usage
from bench.rivals import mien_stages
from common import media
from common.config import load
from common.ledger import Ledger
from common.messages import Result
from common.news import NewsReader
from common.transport import terminate
from models.detector import FaceDetector

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # as Mien's processes have them
FACES = (1, 2, 5, 10, 20, 35, 50)
CAMERAS = (1, 2, 4, 8, 16)
REFERENCES = (10, 100, 1_000, 10_000, 100_000)
DAYS = (1, 7, 30, 90, 365)
SIDE = 72  # px: height of the faces in a frame
PHOTOS = ("five_people.jpg", "obama.jpg", "obama2.jpg", "biden.jpg", "single_face.jpg")
WHOLE = (1, 2, 4)  # cameras of the whole pipeline
WHOLE_SIZE, WHOLE_RATE = (320, 180), 10.0
FIRST_RESULTS_LIMIT_S = 120.0


def faces(report: Report, given: argparse.Namespace) -> None:
    """Faces in a frame: the whole pipeline."""
    tiles = _tiles()
    rates: list[tuple[float, float]] = []
    costs: dict[str, list[tuple[float, float]]] = {}
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        config = configured(folder)
        with (
            Running(config, only=mien_stages()) as running,
            Feeding(config, "cam0", [_frame(tiles, FACES[0], 0)]) as camera,
        ):
            camera.feed(1.0, fewest=20)
            for count in FACES:
                camera.show([_frame(tiles, count, number) for number in range(12)])
                camera.feed(1.0, fewest=10)
                before = usage(running.pids(), memory=False)
                fed = camera.feed(given.seconds, fewest=10)
                spent = by_pool(usage(running.pids(), memory=False).cpu_since(before))
                each = {name: value / len(fed.results) * 1e3 for name, value in spent.items()}
                shown = [face for _, result in fed.results for face in result.faces]
                said = [face.expression.status for face in shown]
                rates.append((count, fed.rate))
                for name in ("detection", "expression", "identity", "conductor"):
                    costs.setdefault(name, []).append((count, each.get(name, 0.0)))
                report.add(
                    "faces in a frame", faces=count, found=len(shown) / len(fed.results),
                    assessed=said.count("ok") / max(len(said), 1), late=said.count("pending") / max(len(said), 1),
                    frames_s=fed.rate, p50_ms=fed.latency(0.5), p95_ms=fed.latency(0.95),
                    cpu_ms_a_frame=sum(each.values()), cpu_ms_a_face=sum(each.values()) / count,
                    detection=each.get("detection", 0.0), expression=each.get("expression", 0.0),
                    identity=each.get("identity", 0.0), conductor=each.get("conductor", 0.0),
                )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report.figures["faces"] = lambda path: plots.lines(
        path, "Faces in a frame: processor time", costs, x="faces", y="ms a frame"
    )
    report.figures["faces-rate"] = lambda path: plots.lines(
        path, "Faces in a frame: frames/s", {"analysed": rates}, x="faces", y="frames/s"
    )


def _tiles() -> list[Picture]:
    """Faces with some of what is around them, all as high as ``SIDE`` says."""
    detector, tiles = FaceDetector(input_long_side=1024), []
    for name in PHOTOS:
        picture = np.asarray(cv2.imread(str(media.sample(name))), np.uint8)
        for x, y, width, height in detector.detect(picture).boxes:
            middle, half = (x + width / 2, y + height / 2), max(width, height) * 0.8
            top, left = max(0, int(middle[1] - half)), max(0, int(middle[0] - half))
            cut = picture[top : int(middle[1] + half), left : int(middle[0] + half)]
            scale = SIDE / float(height)
            tiles.append(np.asarray(cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8))
    return tiles


def _frame(tiles: Sequence[Picture], count: int, number: int) -> Picture:
    """A frame of 1280×720 with so many faces in a grid; they sway a little from frame to frame."""
    columns = math.ceil(math.sqrt(count * 1280 / 720))
    rows = math.ceil(count / columns)
    frame = np.full((720, 1280, 3), 110, np.uint8)
    for place in range(count):
        tile = tiles[place % len(tiles)]
        height, width = min(tile.shape[0], 720 // rows), min(tile.shape[1], 1280 // columns)
        sway = round(2 * math.sin(number / 2 + place))
        top = (place // columns) * (720 // rows) + (720 // rows - height) // 2
        left = (place % columns) * (1280 // columns) + (1280 // columns - width) // 2
        left = min(max(0, left + sway), 1280 - width)
        frame[top : top + height, left : left + width] = tile[:height, :width]
    return frame


STANDS_FOR = "workers that wait, pictures of 160×90, no capture"


def cameras(report: Report, given: argparse.Namespace) -> None:
    """Cameras of 30 frames/s on one conductor."""
    if importlib.util.find_spec("bench.cameras") is None:
        report.notes.append("cameras: left out, there is no bench/cameras.py")
        return
    measure = importlib.import_module("bench.cameras").measure
    cores, served = [], []
    for count in CAMERAS:
        workers = math.ceil(count * 30 * 0.02 * 1.5) + 1
        figures = measure(count, rate=30.0, seconds=given.seconds, wait_ms=20.0, workers=workers)
        cores.append((count, figures.cpu))
        served.append((count, figures.per_s))
        report.add(
            f"cameras on one conductor, 30 frames/s each: {STANDS_FOR}", cameras=count, analysed_s=figures.per_s,
            a_camera_s=figures.per_s / count, conductor_cores=figures.cpu,
            cpu_ms_a_frame=figures.cpu / max(figures.per_s, 1e-9) * 1e3, p50_ms=figures.p50_ms, p99_ms=figures.p99_ms,
            evenness=figures.evenness,
        )  # fmt: skip
    report.figures["cameras"] = lambda path: plots.lines(
        path, "Cameras of 30 frames/s: processor time of the conductor", {"cores": cores}, x="cameras", y="cores"
    )
    report.figures["cameras-served"] = lambda path: plots.lines(
        path, "Cameras of 30 frames/s on one conductor", {"analysed": served}, x="cameras", y="frames/s in all"
    )


def pipelines(report: Report, given: argparse.Namespace) -> None:
    """Cameras of the whole pipeline, from their files to their results."""
    cores: dict[str, list[tuple[float, float]]] = {}
    (width, height), title = WHOLE_SIZE, "cameras of the whole pipeline, 320×180, 10 frames/s each"
    source = str(demo_clip(120.0, width=width, height=height, rate=WHOLE_RATE))
    for count in WHOLE:
        names = [f"cam{number}" for number in range(count)]
        folder = Path(tempfile.mkdtemp(prefix="mien-"))
        try:
            with Running(configured(folder, names, source=source)) as running:
                reader = NewsReader(running.config, ("results.",))
                try:
                    _listen(reader, set(names), FIRST_RESULTS_LIMIT_S)
                    _listen(reader, None, 2.0)  # what is compiled at first use
                    before = usage(running.pids(), memory=False)
                    results = _listen(reader, None, 3 * given.seconds)
                    after = usage(running.pids())
                finally:
                    reader.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        length = after.at - before.at
        spent = {name: value / length for name, value in by_pool(after.cpu_since(before)).items()}
        for name in ("capture", "detection", "conductor"):
            cores.setdefault(name, []).append((count, spent.get(name, 0.0)))
        cores.setdefault("all", []).append((count, sum(spent.values())))
        waited = [result.latency_ms for result in results]
        served = Counter(result.camera for result in results)
        report.add(
            title, cameras=count, analysed_s=len(results) / length,
            least_served_s=min(served[name] for name in names) / length,
            p50_ms=percentile(waited, 0.5), p95_ms=percentile(waited, 0.95), cores=sum(spent.values()),
            cpu_ms_a_frame=sum(spent.values()) * length / max(len(results), 1) * 1e3, capture=spent.get("capture", 0.0),
            detection=spent.get("detection", 0.0), expression=spent.get("expression", 0.0),
            conductor=spent.get("conductor", 0.0), memory_mb=sum(after.memory_mb.values()),
        )  # fmt: skip
    terminate()
    report.figures["pipelines"] = lambda path: plots.lines(
        path, "Cameras of the whole pipeline, 320×180, 10 frames/s each", cores, x="cameras", y="cores"
    )


def _listen(reader: NewsReader, waiting: set[str] | None, seconds: float) -> list[Result]:
    """Return the analysed results of so long; with ``waiting``, until one of each of these cameras is there.

    Raises SystemExit when the time is over before.
    """
    results: list[Result] = []
    ends = time.monotonic() + seconds
    while waiting != set() and (left := ends - time.monotonic()) > 0:
        for _, message in reader.read(timeout_ms=max(1, int(min(left, 0.05) * 1e3))):
            if isinstance(message, Result) and message.analysed:
                results.append(message)
                if waiting is not None:
                    waiting.discard(message.camera)
    if waiting:
        raise SystemExit(f"no result of {', '.join(sorted(waiting))} within {seconds:g} s")
    return results


def gallery(report: Report, given: argparse.Namespace) -> None:
    """References in the gallery: one query."""
    table = "Gallery, one query, one thread"
    for count in REFERENCES:
        galleries.measure(report, count, index_above=None)
    galleries.index(report, load(environment={}), None)
    points: dict[str, list[tuple[float, float]]] = {"nearest": [], "decision": []}
    for row in report.tables[table]:
        for name in points:
            points[name].append((float(row["references"] or 0), float(row[f"{name}_p50_ms"] or 0)))
    report.figures["gallery"] = lambda path: plots.lines(
        path, "Gallery: one query", points, x="references", y="ms (median)", log_x=True, log_y=True
    )


def days(report: Report, given: argparse.Namespace) -> None:
    """Days of history of five people in view all day."""
    points: dict[str, list[tuple[float, float]]] = {}
    for count in DAYS:
        wanted = argparse.Namespace(people=5, days=count, hours=24.0, second_days=min(3, count))
        folder, seen = Path(tempfile.mkdtemp(prefix="mien-")), Report("history", "")
        try:
            with Ledger(folder) as ledger:
                history.generate(ledger, wanted)
                ledger.scrub()
                history.views(ledger, seen, wanted)
                history.writing(ledger, seen, wanted)
            size_mb = sum(path.stat().st_size for path in folder.glob("mien.db*")) / 2**20
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for row in [*seen.tables.get("views", []), *seen.tables.get("upkeep", [])]:
            name = str(row.get("view") or row.get("what"))
            points.setdefault(name, []).append((count, float(row["median_ms"] or 0)))
            report.add("days of history", days=count, what=name, median_ms=row["median_ms"], store_mb=size_mb)
    report.figures["history"] = lambda path: plots.lines(
        path, "History of five people: how long it takes", points, x="days", y="ms (median)", log_x=True, log_y=True
    )


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "faces": faces, "cameras": cameras, "pipelines": pipelines, "gallery": gallery, "history": days,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring, each number of faces or cameras")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}: one of {', '.join(PARTS)}")
    if any(os.environ.get(name) != "1" for name in THREADS):  # read when numpy is loaded: begin again with it set
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    cv2.setNumThreads(1)
    report = Report("growth", "how cost grows with work", {"seconds": given.seconds})
    for part in given.parts or PARTS:
        began = time.monotonic()
        PARTS[part](report, given)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    report.show()
    report.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
