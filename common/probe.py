"""One look at a camera, the screen, a model or the processor, in a process of its own.

Drivers hang, libraries crash, and the command line stays free of OpenCV and OpenVINO: so ``python -m common.probe``
looks, prints what it found as one line of JSON, and ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.child import environment
from common.config import load, save
from common.settings import Config

_RUNS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, in words for people."""

    ok: bool
    text: str


def ask(config: Config, what: str, *arguments: str, timeout_s: float) -> Finding:
    """Look in a child process; a look that takes longer than ``timeout_s``, or crashes, is a finding too."""
    with tempfile.TemporaryDirectory(prefix="mien-probe-") as place:
        file = Path(place) / "config.json"
        save(config, file)
        command = [sys.executable, "-m", "common.probe", str(file), what, *arguments]
        try:
            done = subprocess.run(
                command,
                env=environment(config.storage.data_dir),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return Finding(False, f"no answer within {timeout_s:g} s")
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        return Finding(bool(answer["ok"]), str(answer["text"]))
    except (IndexError, KeyError, TypeError, ValueError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return Finding(False, f"the look at it ended with exit code {done.returncode}: {said[-1]}")


def webcam(config: Config, number: str) -> Finding:
    """Open a webcam and take one picture."""
    return _picture_of(f"webcam:{number}")


def camera(config: Config, name: str) -> Finding:
    """Open a configured camera's source and take one picture."""
    return _picture_of(config.cameras[name].source)


def _picture_of(what: str) -> Finding:
    from common.sources import SourceError, open_source

    try:
        source = open_source(what)
    except SourceError as error:
        return Finding(False, str(error))
    try:
        source.open()
        picture = source.read()
        if picture is None:
            return Finding(False, "it opens but gives no picture")
        height, width = picture.pixels.shape[:2]
        rate = f", {source.frame_rate:g}/s" if source.frame_rate else ""
        return Finding(True, f"{width}×{height}{rate}")
    except SourceError as error:
        return Finding(False, str(error))
    finally:
        source.close()


def screen(config: Config) -> Finding:
    """Take one picture of the screen."""
    from common.sources import SourceError, open_source

    source = open_source("screen")
    try:
        source.open()
        picture = source.read()
        return Finding(picture is not None, "its picture can be taken" if picture else "it gives no picture")
    except SourceError as error:
        return Finding(False, str(error))
    finally:
        source.close()


def model(config: Config, stage: str) -> Finding:
    """Load the model of a stage as the stage does, and run it on an empty picture."""
    import numpy as np

    from models.runtime import ModelError

    threads, cache = config.workers.threads, config.storage.data_dir / "compiled"
    infer: Callable[[], object]
    try:
        if stage == "detection":
            from models.detector import FaceDetector

            settings = config.detection
            detector = FaceDetector(
                settings.model,
                input_long_side=settings.input_long_side,
                threads=threads,
                precision=settings.precision,
                cache_dir=cache,
            )
            picture = np.zeros((360, 640, 3), np.uint8)
            infer, how = (lambda: detector.detect(picture)), f"a 640×360 picture, {detector.precision}"
        elif stage == "identity":
            from models.chips import Aligner
            from models.embedder import Embedder, FaceEmbedder, ReferenceEmbedder

            Aligner()
            reference = config.identity.engine == "face_recognition"
            embedder: Embedder = ReferenceEmbedder() if reference else FaceEmbedder(threads=threads, cache_dir=cache)
            chips = np.zeros((1, 150, 150, 3), np.uint8)
            infer, how = (lambda: embedder.embed(chips)), f"a face, {config.identity.engine}"
        else:
            from models.expression import ExpressionClassifier

            classifier = ExpressionClassifier(
                config.expression.model, threads=threads, precision=config.expression.precision
            )
            crops = np.zeros((1, classifier.size, classifier.size), np.uint8)
            infer, how = (lambda: classifier.classify(crops)), f"a face, {classifier.precision}"
        infer()  # the first one compiles
        times = []
        for _ in range(_RUNS):
            began = time.perf_counter()
            infer()
            times.append(1000 * (time.perf_counter() - began))
    except ModelError as error:
        return Finding(False, str(error))
    return Finding(True, f"{sorted(times)[_RUNS // 2]:.1f} ms for {how}")


def processor(config: Config) -> Finding:
    """Tell what OpenVINO computes on here."""
    from models import runtime

    core = runtime.core()
    name = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    precision = "computes in bf16" if runtime.bf16_is_quicker() else "computes in f32"
    others = [device for device in core.available_devices if device != "CPU"]
    return Finding(True, f"{name}; {precision}; OpenVINO finds {', '.join(others) or 'no GPU'}")


LOOKS: dict[str, Callable[..., Finding]] = {
    "webcam": webcam, "camera": camera, "screen": screen, "model": model, "processor": processor,
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Look at what the arguments say: a configuration file, what, and which."""
    file, what, *rest = argv
    finding = LOOKS[what](load(Path(file), environment={}), *rest)
    print(json.dumps(asdict(finding)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
