"""Evaluation of shipped files, through the same crop and the same run-time that the pipeline uses."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common.expressions import EXPRESSIONS
from models import crop, runtime
from models.expression import ExpressionClassifier, eight_bits
from models.train import data as fer
from models.train.baseline import MiniXception
from models.train.metrics import Scores, calibration_error, score

FACE_SIZES_PX: Final = (24, 36, 48, 96)


class Classifier(Protocol):
    """Grey faces (N, size, size) uint8 to probabilities (N, 7)."""

    @property
    def size(self) -> int:
        """Side of the faces in pixels."""
        ...

    def classify(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities in the order of `EXPRESSIONS`."""
        ...


def cut_all(
    images: NDArray[np.uint8],
    size: int,
    *,
    zoom: float = 1.0,
    shift: NDArray[np.floating] | None = None,
    angle: float = 0.0,
) -> NDArray[np.uint8]:
    """Faces (N, size, size) cut out of frames (N, H, W): the whole frame, or a square moved, turned and resized.

    ``zoom`` above 1 makes the face larger in the crop; ``shift`` (N, 2) is in shares of the frame, ``angle`` degrees.
    """
    side = images.shape[1]
    moves = np.zeros((len(images), 2)) if shift is None else shift * side
    squares = (
        crop.Square(cx=side / 2 + float(dx), cy=side / 2 + float(dy), side=side / zoom, angle=angle) for dx, dy in moves
    )
    return np.stack([crop.cut(image, square, size) for image, square in zip(images, squares, strict=True)])


def conditions(images: NDArray[np.uint8], size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The validation faces as a detector and a camera could show them: what is different, and the faces."""
    yield "as they are", cut_all(images, size)
    for zoom in (0.7, 0.8, 0.9, 1.1, 1.25):
        yield f"face at {zoom:.2f} of its size in the crop", cut_all(images, size, zoom=zoom)
    shift = np.random.default_rng(0).uniform(-0.1, 0.1, (len(images), 2))
    yield "moved by up to 10 % each way", cut_all(images, size, shift=shift)
    for angle in (-15.0, 15.0):
        yield f"turned by {angle:+.0f}°", cut_all(images, size, angle=angle)
    for pixels in FACE_SIZES_PX:
        method = cv2.INTER_AREA if pixels < images.shape[1] else cv2.INTER_CUBIC
        frames = np.stack([np.asarray(cv2.resize(i, (pixels, pixels), interpolation=method), np.uint8) for i in images])
        yield f"{pixels} px a face", cut_all(frames, size)
    dim = np.rint((images.astype(np.float32) - 128) * 0.4 + 60).clip(0, 255).astype(np.uint8)
    yield "dim, 40 % of the contrast", cut_all(dim, size)


def milliseconds_a_face(classifier: Classifier, batch: int) -> float:
    """The time of a face in batches of that many, in milliseconds, on the threads the classifier has.

    The 10th percentile of a hundred runs, so that neighbours on a busy machine do not count.
    """
    faces = np.random.default_rng(0).integers(0, 255, (batch, classifier.size, classifier.size), dtype=np.uint8)
    seconds = []
    for _ in range(110):
        began = time.perf_counter()
        classifier.classify(faces)
        seconds.append(time.perf_counter() - began)
    return float(np.percentile(seconds[10:], 10)) * 1000 / batch


def temperature_of(model: Path) -> float | None:
    """The temperature in the file, as its neighbour ``.json`` tells it; None without one."""
    card = model.with_suffix(".json")
    return float(json.loads(card.read_text(encoding="utf-8"))["temperature"]) if card.is_file() else None


def evaluate(data: Path, model: Path, baseline: Path | None, pictures: Path | None, console: Console) -> None:
    """Print every figure of ``docs/models.md`` about the model; with ``pictures``, write the plots there."""
    split = fer.load(data / "fer_val.npz")
    kept = split.select(split.judgeable())
    truth = kept.truth()
    console.print(f"{len(split)} validation images, {len(kept)} of them judged by the evaluation rule")

    ways = {
        made.precision: made for made in (ExpressionClassifier(model), ExpressionClassifier(model, precision="f32"))
    }
    if eight_bits(model).is_file() and runtime.int8_is_quicker():
        ways = {"int8": ExpressionClassifier(eight_bits(model), precision="f32"), **ways}
    ours = next(iter(ways.values()))  # what the run-time chooses
    contenders: list[tuple[str, Classifier]] = [(f"{made.path.name}, {kind}", made) for kind, made in ways.items()]
    if baseline is not None:
        contenders.append(("mini-XCEPTION", MiniXception(baseline)))
    summary = Table(
        "model", "accuracy", "macro recall", "calibration error", "vs FER2013 label", "ms, 1 face", "ms, of 8"
    )
    recalls = Table("model", *EXPRESSIONS, title="recall by expression")
    found: list[tuple[NDArray[np.float32], Scores]] = []
    for name, classifier in contenders:
        probabilities = classifier.classify(cut_all(kept.images, classifier.size))
        scores = score(probabilities, truth)
        found.append((probabilities, scores))
        summary.add_row(
            name,
            f"{scores.accuracy:.1%}",
            f"{scores.macro_recall:.1%}",
            f"{scores.calibration_error:.3f}",
            f"{_against_fer2013(classifier, split):.1%}",
            f"{milliseconds_a_face(classifier, 1):.2f}",
            f"{milliseconds_a_face(classifier, 8):.2f}",
        )
        recalls.add_row(name, *(f"{recall:.1%}" for recall in scores.recalls))
    console.print(summary)
    console.print(recalls)

    probabilities, scores = found[0]
    temperature = temperature_of(model)
    if temperature is not None:
        before = probabilities.astype(np.float64) ** temperature
        before /= before.sum(axis=1, keepdims=True)
        console.print(
            f"calibration error without temperature scaling {calibration_error(before, truth):.3f}, "
            f"with temperature {temperature:.3f}: {scores.calibration_error:.3f} (fitted on these images)"
        )
    console.print(_confusion_table(scores))
    jitter = Table("validation images", "accuracy", "macro recall", "calibration error", "sad", "disgusted", "fearful")
    for name, faces in conditions(kept.images, ours.size):
        under = score(ours.classify(faces), truth)
        rare = (f"{under.recalls[EXPRESSIONS.index(e)]:.1%}" for e in ("sad", "disgusted", "fearful"))
        jitter.add_row(
            name, f"{under.accuracy:.1%}", f"{under.macro_recall:.1%}", f"{under.calibration_error:.3f}", *rare
        )
    console.print(jitter)

    if pictures is not None:
        from models.train import plots

        pictures.mkdir(parents=True, exist_ok=True)
        plots.confusion(scores, pictures / "expression-confusion.png")
        plots.reliability_plot(probabilities, truth, pictures / "expression-reliability.png")
        console.print(f"plots written to {pictures}")


def _against_fer2013(classifier: Classifier, split: fer.FerData) -> float:
    labelled = split.select(split.fer2013_label >= 0)
    found = classifier.classify(cut_all(labelled.images, classifier.size)).argmax(axis=1)
    return float((found == labelled.fer2013_label).mean())


def _confusion_table(scores: Scores) -> Table:
    table = Table("truth", *EXPRESSIONS, title="confusion: rows truth, columns prediction")
    for name, row in zip(EXPRESSIONS, scores.confusion, strict=True):
        table.add_row(name, *(str(count) for count in row))
    return table
