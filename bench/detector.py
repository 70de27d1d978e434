"""The detector: time and recall by input size and precision, with every n-th frame only, with close looks in between.

    python bench/detector.py [precision|hardware|every|close …] [--rounds 15] [--quick]

Times are medians of the processor time of one call on one thread, the variants taken in turn in one run. Recall is
judged on the crowd scene (faces of 40 px and more, neither hidden nor turned away), on the sample photographs against
what f32 finds at 1024 pixels, and by how far boxes and landmarks move against f32 of the same size. ``int8`` needs
NNCF (``pip install nncf``); it is worth having only where recall and boxes stay (``accepted``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import plots, quantise
from bench.models import Picture, crowd_frames, photo
from bench.report import Report, median
from bench.truth import Found, Score, iou, match, score
from common import crowd, media
from common.attention import Attention
from common.settings import Config
from common.tracks import Tracker
from models import appearance, runtime
from models.detector import Detections, FaceDetector, fit
from models.runtime import Network

import openvino  # isort: skip  # after models.runtime, which keeps it from calling home

SIDES = (256, 320, 416, 512, 640)
THRESHOLD = Config().detection.score_threshold
PHOTOS = [name for name in media.SAMPLES if name.endswith(".jpg")]
RECALL_LOSS, OVERLAP = 0.005, 0.9  # what int8 may lose on either set, and the least median overlap with f32's boxes
EVERY = (1, 2, 3, 4, 6)
# What oneDNN is limited to; below AVX-512 OpenVINO's own choice of kernels does not follow it.
HARDWARE = {"as it is": "DEFAULT", "AVX-512 with VNNI": "AVX512_CORE_VNNI", "AVX-512": "AVX512_CORE"}


class Variant(FaceDetector):
    """The detector at one size in one precision: ``f32``, ``bf16`` or ``int8``."""

    def __init__(self, side: int, precision: str) -> None:
        super().__init__(
            input_long_side=side,
            score_threshold=THRESHOLD,
            precision="f32" if precision == "f32" else "bf16" if precision == "bf16" else "auto",
        )
        self._int8 = precision == "int8"

    def _network(self, size: tuple[int, int]) -> tuple[Network, NDArray[np.float32]]:
        if not self._int8 or size in self._networks:
            return super()._network(size)
        network = runtime.compile_network(
            lambda: quantise.sized(_quantised(), *size), key="int8", precision="auto", bf16_allowed=True
        )
        buffer = np.zeros((1, size[1], size[0], 3), np.uint8)
        self._networks[size] = (network, buffer)  # type: ignore[assignment]  # bytes: that is what it takes
        return self._networks[size]


@cache
def _quantised() -> openvino.Model:
    return quantise.quantise(list(quantise.calibration_pictures()))


def precisions() -> list[str]:
    """Return those that this machine has of its own (bf16 without hardware is emulated, and slow)."""
    return ["f32", *(["bf16"] if runtime.has_bf16_hardware() else []), *(["int8"] if quantise.available() else [])]


def cpu_ms(variants: dict[str, FaceDetector], picture: Picture, rounds: int) -> dict[str, float]:
    """Return the median processor time of one detection by each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 2):
        for name, detector in variants.items():
            began = time.process_time()
            detector.detect(picture)
            if turn > 1:
                times[name].append((time.process_time() - began) * 1e3)
    return {name: median(values) for name, values in times.items()}


def found(faces: Detections) -> list[Found]:
    """Return faces as they are scored."""
    return [([float(side) for side in box], None) for box in faces.boxes]


def by_precision(report: Report, given: argparse.Namespace) -> None:
    """Size by precision: time, recall, overlap."""
    frames = dict(crowd_frames(every=75 if given.quick else 15))
    truth = crowd.truth()
    pictures = [photo(name) for name in PHOTOS]
    best = Variant(1024, "f32")
    wanted = [[box.tolist() for box in best.detect(picture).boxes] for picture in pictures]
    kinds = precisions()
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for side in given.sides:
        variants: dict[str, FaceDetector] = {kind: Variant(side, kind) for kind in kinds}
        times = cpu_ms(variants, next(iter(frames.values())), given.rounds)
        exact: list[Detections] = []
        base: tuple[float, float] | None = None
        for kind, detector in variants.items():
            in_crowd = {number: detector.detect(frame) for number, frame in frames.items()}
            in_photos = [detector.detect(picture) for picture in pictures]
            scored = score({number: found(faces) for number, faces in in_crowd.items()}, truth)
            of_photos = _recall(wanted, in_photos)
            faces = [*in_crowd.values(), *in_photos]
            exact = exact or faces
            base = base or (scored.recall, of_photos)
            overlaps, moved = _agreement(exact, faces)
            points[kind].append((times[kind], scored.recall))
            kept = min(scored.recall - base[0], of_photos - base[1]) >= -RECALL_LOSS
            report.add(
                "size and precision, one thread", long_side=side, precision=kind, cpu_ms=times[kind],
                against_f32=times["f32"] / times[kind], crowd_recall=scored.recall, crowd_precision=scored.precision,
                photo_recall=of_photos, overlap=median(overlaps), overlap_p5=float(np.percentile(overlaps, 5)),
                landmarks_p95=float(np.percentile(moved, 95)),
                accepted="yes" if kept and median(overlaps) >= OVERLAP else "NO",
            )  # fmt: skip
    report.notes.append(
        f"crowd: {len(frames)} frames; photographs: {sum(map(len, wanted))} faces in {len(pictures)}; overlap: with "
        "the boxes of f32 at the same size; landmarks: how far 95 % moved less than, in face sizes"
    )
    report.figures["size"] = lambda path: plots.lines(
        path, "Detector, 1280×720: recall on the crowd scene", points, x="processor time, ms a frame", y="recall"
    )


def by_hardware(report: Report, given: argparse.Namespace) -> None:
    """The network alone as processors without the newest instructions run it: oneDNN is told to do without."""
    side = Config().detection.input_long_side
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        file = Path(folder) / "int8.xml"
        if quantise.available():
            openvino.save_model(_quantised(), file, compress_to_fp16=False)
        for name, limit in HARDWARE.items():
            command = [sys.executable, __file__, "--alone", str(file), "--rounds", str(given.rounds)]
            limited = os.environ | {"ONEDNN_MAX_CPU_ISA": limit}
            done = subprocess.run(command, env=limited, capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                raise SystemExit(f"the network does not run with {limit}:\n{done.stderr}")
            times = json.loads(done.stdout.splitlines()[-1])
            for kind, value in times.items():
                report.add(
                    f"the network alone, long side {side}, by what the processor can do", processor=name,
                    precision=kind, cpu_ms=value, against_f32=times["f32"] / value,
                )  # fmt: skip


def alone(int8: Path, rounds: int) -> dict[str, float]:
    """Return the processor time of the network by precision, ms, taken in turn; what the child of ``hardware`` does."""
    placed = fit(1280, 720, Config().detection.input_long_side)
    size = placed.input_size
    kinds: dict[str, tuple[Network, NDArray[np.generic]]] = {}
    for kind in precisions():
        given = {"key": "alone", "precision": "bf16" if kind == "bf16" else "f32", "bf16_allowed": True}
        if kind == "bf16" and os.environ.get("ONEDNN_MAX_CPU_ISA") != HARDWARE["as it is"]:
            continue  # emulated there
        if kind != "int8":
            network = runtime.compile_network(lambda: quantise.graph(*size), **given)  # type: ignore[arg-type]
        elif int8.exists():
            network = runtime.compile_network(lambda: quantise.sized(runtime.read(int8), *size), **given)  # type: ignore[arg-type]
        kinds[kind] = network, np.zeros((1, size[1], size[0], 3), np.uint8 if kind == "int8" else np.float32)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, (network, picture) in kinds.items():
            network(picture)  # what the others have pushed out of the caches is no part of it
            began = time.process_time()
            network(picture)
            times[kind].append((time.process_time() - began) * 1e3)
    return {kind: median(values) for kind, values in times.items()}


def _recall(wanted: list[list[list[float]]], got: list[Detections]) -> float:
    pairs = [match(boxes, faces.boxes.tolist()) for boxes, faces in zip(wanted, got, strict=True)]
    return sum(map(len, pairs)) / sum(map(len, wanted))


def _agreement(first: Sequence[Detections], second: Sequence[Detections]) -> tuple[list[float], list[float]]:
    """Overlap of boxes that belong together, and how far their landmarks are apart in face sizes."""
    overlaps, moved = [], []
    for one, other in zip(first, second, strict=True):
        for row, column in match(one.boxes.tolist(), other.boxes.tolist()):
            overlaps.append(float(iou(one.boxes[row : row + 1], other.boxes[column : column + 1])[0, 0]))  # type: ignore[arg-type]
            size = float(np.sqrt(one.boxes[row, 2] * one.boxes[row, 3]))
            moved += (np.linalg.norm(one.landmarks[row] - other.landmarks[column], axis=1) / size).tolist()
    return overlaps, moved


def every_nth(report: Report, given: argparse.Namespace) -> None:
    """Detection in every n-th frame, boxes carried forward by their motion in between."""
    side = Config().detection.input_long_side
    seen = _watched(given, FaceDetector(input_long_side=side, score_threshold=THRESHOLD))
    truth, points = crowd.truth(), []
    for step in EVERY:
        tracker, boxes = Tracker(), {}
        detected_ms: list[float] = []
        for number, (faces, looks, took_ms) in enumerate(seen):
            at_s = number / crowd.FRAME_RATE
            if number % step == 0:
                tracker.update(at_s, faces.boxes, faces.scores, looks)
                detected_ms.append(took_ms)
                last_s = at_s
            boxes[number] = [
                (list(track.expected(at_s)), track.id) for track in tracker.tracks if track.seen_s >= last_s
            ]
        scored, cost = score(boxes, truth), sum(detected_ms) / len(seen)
        points.append((cost, scored.recall))
        _add_way(report, "detection in every n-th frame, motion in between", f"every {step}", cost, scored)
    report.figures["every"] = lambda path: plots.lines(
        path, "Detection in every n-th frame of the crowd scene", {"every 1, 2, 3, 4, 6": points},
        x="processor time, ms a frame", y="recall",
    )  # fmt: skip


def close_looks(report: Report, given: argparse.Namespace) -> None:
    """Looks only around the faces that are followed between looks at everything, as the conductor chooses them."""
    side = Config().detection.input_long_side
    truth = crowd.truth()
    for scene in ("the crowd scene", "the demo clip"):
        pictures = _pictures(given, crowd.crowd_video() if "crowd" in scene else media.sample("woman.mp4"))
        for close in (False, True):
            detector = FaceDetector(input_long_side=side, score_threshold=THRESHOLD)
            tracker, attention = Tracker(), Attention(side, close=close)
            boxes: dict[int, list[Found]] = {}
            times, full = [], 0
            for number, picture in enumerate(pictures):
                at_s = number / crowd.FRAME_RATE
                near = attention.choose(at_s, (picture.shape[1], picture.shape[0]), tracker.tracks)
                began = time.process_time()
                faces = detector.detect(picture, near)
                times.append((time.process_time() - began) * 1e3)
                tracks, _ = tracker.update(at_s, faces.boxes, faces.scores, _looks(picture, faces))
                attention.looked(at_s)
                full += near is None
                boxes[number] = [
                    (box.tolist(), track.id) for box, track in zip(faces.boxes, tracks, strict=True) if track
                ]
            scored = score(boxes, truth) if "crowd" in scene else None
            report.add(
                "close looks around the faces that are followed, between full ones", scene=scene,
                close_looks="yes" if close else "no",
                cpu_ms_mean=float(np.mean(times[2:])), cpu_ms_median=median(times[2:]),
                looked_at_in_full=full / len(pictures), faces_a_frame=sum(map(len, boxes.values())) / len(boxes),
                crowd_recall=scored.recall if scored else None,
                crowd_precision=scored.precision if scored else None,
                ids_that_moved=scored.id_switches if scored else None,
            )  # fmt: skip


def _pictures(given: argparse.Namespace, path: Path) -> list[Picture]:
    film = cv2.VideoCapture(str(path))
    pictures: list[Picture] = []
    while len(pictures) < given.frames and (read := film.read())[0]:
        pictures.append(np.asarray(read[1], np.uint8))
    film.release()
    return pictures


def _watched(given: argparse.Namespace, detector: FaceDetector) -> list[tuple[Detections, NDArray[np.float32], float]]:
    watched = []
    for picture in _pictures(given, crowd.crowd_video()):
        began = time.process_time()
        faces = detector.detect(picture)
        watched.append((faces, _looks(picture, faces), (time.process_time() - began) * 1e3))
    return watched


def _looks(picture: Picture, faces: Detections) -> NDArray[np.float32]:
    looks = [appearance.describe(picture, box) for box in faces.boxes]
    return np.array(looks, np.float32).reshape(-1, appearance.SIZE)


def _add_way(report: Report, table: str, way: str, cost: float, scored: Score) -> None:
    report.add(
        table, way=way, cpu_ms_a_frame=cost, recall=scored.recall, precision=scored.precision,
        ids_that_moved=scored.id_switches, ids_a_person=median(float(n) for n in scored.ids_per_person.values()),
    )  # fmt: skip


PARTS = {"precision": by_precision, "hardware": by_hardware, "every": every_nth, "close": close_looks}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=25, help="of each variant")
    parser.add_argument("--quick", action="store_true", help="fewer frames and sizes: to see that it works")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.alone:
        print(json.dumps(alone(given.alone, given.rounds)))
        return 0
    parts = given.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}: one of {', '.join(PARTS)}")
    given.sides = (320, 512) if given.quick else SIDES
    given.frames = 120 if given.quick else crowd.FRAMES
    cv2.setNumThreads(1)
    report = Report("detector", "the face detector at 1280×720, one thread", {"rounds": given.rounds})
    if not quantise.available():
        report.notes.append("int8 left out: pip install nncf")
    for part in parts:
        PARTS[part](report, given)
    report.show()
    report.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
