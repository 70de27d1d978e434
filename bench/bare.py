"""The models alone: what has to be computed for a frame, in a plain loop, without messages.

Of other frames it remembers only where faces were in the last one.

``python bench/bare.py PICTURES.npy`` reads lines of JSON (``seconds``, ``rate``: frames a second or null, ``identity``:
faces a frame that identity looks at, ``jpeg``: pictures a frame that are encoded, ``whole``: the share of pictures that
the detector looks at as a whole, and not only around the faces of the one before, ``offset``) and answers each with the
milliseconds a frame of every step. ``bench/limit.py`` starts one on each core.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.report import median, percentile
from common import jpeg
from common.config import load
from common.media import data_dir
from models import appearance, chips, crop, quality, runtime
from models.detector import FaceDetector
from models.embedder import FaceEmbedder
from models.expression import ExpressionClassifier

MODELS = ("detection", "expression", "identity", "jpeg")  # the rest is what Mien does besides
PATH = ("detection", "crops", "expression")  # one after the other, before a frame's result can be there


class Bare:
    """The models and the steps between them.

    Attributes:
        spent_s: processor time by step, all frames together.
        inference_s: … of it in networks.
    """

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._config = load(environment={})
        settings, cache = self._config.detection, data_dir() / "compiled"
        self._detector = FaceDetector(
            input_long_side=settings.input_long_side, score_threshold=settings.score_threshold, cache_dir=cache
        )
        self._classifier, self._embedder = ExpressionClassifier(cache_dir=cache), FaceEmbedder(cache_dir=cache)
        self._aligner = chips.Aligner()
        self._owed = {"identity": 0.0, "jpeg": 0.0, "whole": 0.0}
        self._before: list[list[float]] = []  # the boxes found in the last picture
        self._limits = quality.Limits(min_size_px=settings.min_face_px)
        self.spent_s: dict[str, float] = defaultdict(float)
        self.inference_s: dict[str, float] = defaultdict(float)
        self._path_ms = 0.0

    def look(self, picture: NDArray[np.uint8], identity: float, encoded: float, whole: float = 1.0) -> float:
        """Do all that is to be done for a picture; return how long its result had to wait for models, ms."""
        self._path_ms = 0.0
        self._owed["whole"] += whole
        near = self._owed["whole"] < 1 and bool(self._before)
        self._owed["whole"] = self._owed["whole"] if near else max(0.0, self._owed["whole"] - 1)
        with self._step("detection"):
            found = self._detector.detect(picture, self._before if near else None)
        self._before = found.boxes.tolist()
        faces = list(zip(found.boxes, found.landmarks, strict=True))
        with self._step("crops"):
            cut = [crop.cut(picture, crop.face_square(box, points)) for box, points in faces]
        if cut:
            with self._step("expression"):
                self._classifier.classify(np.stack(cut))
        with self._step("measures"):
            for box, points in faces:
                quality.reason(quality.assess(picture, box, points), self._limits)
                appearance.describe(picture, box)
        self._owed["identity"] += identity
        count = min(int(self._owed["identity"]), len(faces))
        if count:
            self._owed["identity"] -= count
            with self._step("patches"):
                aligned = [self._aligner.chip(chips.cut_patch(picture, box)) for box, _ in faces[:count]]
            with self._step("identity"):
                self._embedder.embed(np.stack(aligned))
        self._owed["jpeg"] += encoded
        if self._owed["jpeg"] >= 1:
            self._owed["jpeg"] -= 1
            with self._step("jpeg"):
                jpeg.encode(picture, self._config.preview.jpeg_quality)
        return self._path_ms

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began, cpu, inside = time.perf_counter(), time.process_time(), runtime.inference_cpu_s()
        yield
        self.spent_s[name] += time.process_time() - cpu
        self.inference_s[name] += runtime.inference_cpu_s() - inside
        if name in PATH:
            self._path_ms += (time.perf_counter() - began) * 1e3


def run(bare: Bare, pictures: NDArray[np.uint8], asked: dict[str, Any]) -> dict[str, Any]:
    """Look at pictures for so long, as fast as it goes or so many a second."""
    bare.spent_s.clear()
    bare.inference_s.clear()
    began, paths, number = time.perf_counter(), [], 0
    due = began
    while time.perf_counter() < began + asked["seconds"] or not number:
        if asked["rate"]:
            time.sleep(max(0.0, due - time.perf_counter()))  # a camera's pace: nothing could be polled meanwhile
            due = max(due + 1 / asked["rate"], time.perf_counter() - 1)
        picture = pictures[(number + asked["offset"]) % len(pictures)]
        paths.append(bare.look(picture, asked["identity"], asked["jpeg"], asked["whole"]))
        number += 1
    return {
        "frames": number, "seconds": time.perf_counter() - began, "path_p50_ms": median(paths),
        "path_p95_ms": percentile(paths, 0.95),
        "spent_ms": {name: value / number * 1e3 for name, value in bare.spent_s.items()},
        "inference_ms": {name: value / number * 1e3 for name, value in bare.inference_s.items()},
    }  # fmt: skip


def main() -> int:
    """Answer until the input ends; return the exit code."""
    pictures = np.load(sys.argv[1], mmap_mode="r")
    bare = Bare()
    for number in range(4):
        bare.look(pictures[number], 2.0, 1.0, whole=0.5)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(bare, pictures, json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
