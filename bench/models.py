"""The face models: time, recall by input size, agreement with the reference, memory.

    python bench/models.py [detector|embedder|steps|memory …]

Times are medians of the CPU time of one call on one thread, the variants taken in turn in one run: on a machine with
other work to do they hold better than time on the wall, though caches and memory are still shared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openvino

from bench.report import machine
from bench.truth import Found, score
from common import crowd
from common.media import sample
from models import appearance, files, quality, runtime
from models.chips import Aligner, cut_patch
from models.detector import Detections, FaceDetector
from models.embedder import FaceEmbedder

console = Console(width=120)
Picture = NDArray[np.uint8]

SIDES = (640, 608, 576, 544, 512, 480, 416)
THRESHOLDS = (0.5, 0.35)
SMALL_PHOTOS = ("five_people.jpg", "single_face.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg")
SMALL_HEIGHTS = (40, 50, 64)  # px


def in_turn(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each, called in turn for so many `rounds` and one before that does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, call in variants.items():
            start = time.process_time()
            call()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) * 1e3 for name, values in times.items()}


def photo(name: str) -> Picture:
    """A sample photo as (H, W, 3) uint8 BGR."""
    return np.asarray(cv2.imread(str(sample(name)), cv2.IMREAD_COLOR), np.uint8)


def crowd_frames(every: int) -> Iterator[tuple[int, Picture]]:
    """(frame number, picture) of the crowd scene, each `every`-th."""
    video = cv2.VideoCapture(str(crowd.crowd_video()))
    for number in range(crowd.FRAMES):
        if not video.grab():
            break
        if number % every == 0:
            yield number, np.asarray(video.retrieve()[1], np.uint8)
    video.release()


def small_faces() -> dict[int, list[tuple[Picture, NDArray[np.float32]]]]:
    """By height in pixels: frames of 1280×720 with one photo, shrunk so that a face is that high; and its box."""
    detector = FaceDetector(input_long_side=1024)
    frames: dict[int, list[tuple[Picture, NDArray[np.float32]]]] = {height: [] for height in SMALL_HEIGHTS}
    for name in SMALL_PHOTOS:
        picture = photo(name)
        for box in detector.detect(picture).boxes:
            for height in SMALL_HEIGHTS:
                factor = height / float(box[3])
                small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
                frame = np.full((720, 1280, 3), 110, np.uint8)
                top, left = (720 - small.shape[0]) // 2, (1280 - small.shape[1]) // 2
                frame[top : top + small.shape[0], left : left + small.shape[1]] = small
                frames[height].append((frame, box * factor + np.array([left, top, 0, 0], np.float32)))
    return frames


def best_scores(detector: FaceDetector, frames: list[tuple[Picture, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """For each frame the score of the best detection on its face, 0 where there is none."""
    scores = []
    for frame, box in frames:
        found = detector.detect(frame)
        middles = found.boxes[:, :2] + found.boxes[:, 2:] / 2
        inside = np.all((middles > box[:2]) & (middles < box[:2] + box[2:]), axis=1)
        scores.append(found.scores[inside].max(initial=0))
    return np.array(scores, np.float32)


def bench_detector() -> None:
    """Time and recall by the network's input size; and the rebuilt graph against the file's own."""
    detectors = {side: FaceDetector(input_long_side=side, score_threshold=min(THRESHOLDS)) for side in SIDES}
    frames = dict(crowd_frames(every=15))
    truth = crowd.truth()
    small = small_faces()
    one = next(iter(frames.values()))
    times = in_turn({str(side): lambda d=detector: d.detect(one) for side, detector in detectors.items()}, 30)  # type: ignore[misc]
    table = Table(title=f"detector, 1280×720, {detectors[640].precision}, one thread")
    for heading in (
        "long side",
        "CPU ms",
        "threshold",
        "crowd: recall",
        "precision",
        *(f"{h} px" for h in SMALL_HEIGHTS),
    ):
        table.add_column(heading, justify="right")
    for side, detector in detectors.items():
        found = {number: detector.detect(frame) for number, frame in frames.items()}
        shrunk = [best_scores(detector, small[height]) for height in SMALL_HEIGHTS]
        for threshold in THRESHOLDS:
            scored = score({number: _above(faces, threshold) for number, faces in found.items()}, truth)
            shares = [f"{np.mean(scores > threshold):.2f}" for scores in shrunk]
            table.add_row(
                str(side),
                f"{times[str(side)]:.1f}",
                f"{threshold}",
                f"{scored.recall:.3f}",
                f"{scored.precision:.3f}",
                *shares,
            )
    console.print(table)
    console.print(
        f"crowd: {len(frames)} frames, faces of 40 px and more that are neither hidden nor turned away; "
        f"N px: {len(small[SMALL_HEIGHTS[0]])} faces of the sample photos, this high, one photo a frame"
    )
    _bench_graph()


def _above(faces: Detections, threshold: float) -> list[Found]:
    kept = faces.scores > threshold
    return [([float(side) for side in box], None) for box in faces.boxes[kept]]


def _bench_graph() -> None:
    width, height = 640, 352
    picture = cv2.resize(photo("five_people.jpg"), (width, height)).astype(np.float32)
    original = runtime.read(files.centerface())
    original.reshape([1, 3, height, width])
    planes = np.ascontiguousarray(picture[None, :, :, ::-1].transpose(0, 3, 1, 2))
    as_is = runtime.compile_network(lambda: original, key="original")
    detector = FaceDetector()
    detector.prepare(1280, 720)
    rebuilt = detector._networks[(width, height)][0]
    times = in_turn({"file": lambda: as_is(planes), "rebuilt": lambda: rebuilt(picture[None])}, 60)
    console.print(
        f"graph at {width}×{height}, CPU ms: the file's own {times['file']:.1f}, rebuilt {times['rebuilt']:.1f} "
        f"({1 - times['rebuilt'] / times['file']:.0%} less)"
    )


def bench_embedder() -> None:
    """The identity network by batch, and against dlib."""
    import dlib

    detector, aligner, embedder = FaceDetector(), Aligner(), FaceEmbedder()
    found = []
    for name in SMALL_PHOTOS:
        picture = photo(name)
        found += [aligner.chip(cut_patch(picture, box)) for box in detector.detect(picture).boxes]
    chips = np.stack(found)
    reference = dlib.face_recognition_model_v1(str(files.face_recognition()))
    wanted = np.array([np.array(reference.compute_face_descriptor(chip)) for chip in chips])
    difference = np.abs(embedder.embed(chips, mirrored=False) - wanted).max()
    variants: dict[str, Callable[[], object]] = {
        f"{count} chip{'s' if count > 1 else ''}": lambda count=count: embedder.embed(chips[:count], mirrored=False)  # type: ignore[misc]
        for count in (1, 2, 4, 8)
    }
    variants["dlib"] = lambda: reference.compute_face_descriptor(chips[0])
    times = in_turn(variants, 12)
    table = Table(title=f"identity network, {embedder.precision}, one thread; mirrored doubles the chips")
    table.add_column("at once")
    table.add_column("CPU ms a chip", justify="right")
    for name, value in times.items():
        table.add_row(name, f"{value / (1 if name == 'dlib' else int(name.split()[0])):.1f}")
    console.print(table)
    console.print(f"largest difference from dlib on {len(chips)} chips: {difference:.1e}")


def bench_steps() -> None:
    """What is done for each face beside the networks."""
    picture, detector, aligner = photo("five_people.jpg"), FaceDetector(), Aligner()
    found = detector.detect(picture)
    box, landmarks = found.boxes[0], found.landmarks[0]
    large = np.asarray(cv2.resize(picture, None, fx=4, fy=4), np.uint8)
    patch = cut_patch(picture, box)
    times = in_turn(
        {
            f"quality, face of {box[3]:.0f} px": lambda: quality.assess(picture, box, landmarks),
            f"quality, face of {4 * box[3]:.0f} px": lambda: quality.assess(large, 4 * box, 4 * landmarks),
            "appearance": lambda: appearance.describe(picture, box),
            "patch": lambda: cut_patch(picture, box),
            f"patch, face of {4 * box[3]:.0f} px": lambda: cut_patch(large, 4 * box),
            "chip (landmarks and alignment)": lambda: aligner.chip(patch),
        },
        300,
    )
    table = Table(title="each face")
    table.add_column("step")
    table.add_column("CPU µs", justify="right")
    for name, value in times.items():
        table.add_row(name, f"{value * 1e3:.0f}")
    console.print(table)


_MEMORY = """
import sys; sys.path.insert(0, {root!r})
import pathlib, numpy, cv2, zmq
cv2.setNumThreads(1)
cache = pathlib.Path({cache!r}) if {cache!r} else None
{code}
fields = dict(line.split(":") for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
print(int(fields["Pss"].split()[0]) // 1024, int(fields["Rss"].split()[0]) // 1024)
"""
_LOADS = {
    "detector, 1280×720": (
        "from models.detector import FaceDetector\n"
        "FaceDetector(cache_dir=cache).detect(numpy.zeros((720, 1280, 3), numpy.uint8))"
    ),
    "identity, batches of 8": (
        "from models.chips import Aligner\nfrom models.embedder import FaceEmbedder\na = Aligner()\n"
        "e = FaceEmbedder(cache_dir=cache)\ne.embed(numpy.zeros((4, 150, 150, 3), numpy.uint8))"
    ),
}


def bench_memory() -> None:
    """Memory of a process with one model, python, numpy, cv2 and zmq included; Linux only."""
    import tempfile

    if not Path("/proc/self/smaps_rollup").exists():
        console.print("memory: needs Linux 4.14 or later")
        return
    table = Table(title="memory of a process, MB: PSS shares libraries with what else runs, RSS counts them whole")
    for heading in ("process", "PSS", "RSS", "PSS from the cache", "RSS from the cache"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    with tempfile.TemporaryDirectory() as cache:
        for name, code in _LOADS.items():
            results = []
            for folder in ("", cache, cache):
                script = _MEMORY.format(root=str(Path(__file__).resolve().parents[1]), cache=folder, code=code)
                done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
                results.append(done.stdout.split())
            table.add_row(name, *results[0], *results[2])
    console.print(table)


PARTS = {"detector": bench_detector, "embedder": bench_embedder, "steps": bench_steps, "memory": bench_memory}


def main() -> int:
    """Print the tables asked for, all when none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parts = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}: one of {', '.join(PARTS)}")
    cv2.setNumThreads(1)
    facts = {**machine(), "openvino": openvino.__version__.split("-")[0]}
    console.print(" · ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
    for part in parts:
        PARTS[part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
