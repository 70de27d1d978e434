"""The detector in eight bits: OpenVINO's NNCF measures the range of each layer on sample pictures and rounds to it.

    python bench/quantise.py --out FOLDER

writes ``detector-int8.xml`` and ``.bin``, which hold weights and ranges and no picture. Needs ``pip install nncf``.
The pictures that ranges are measured on are the crowd scene and the clips among the sample media; recall is judged on
other frames of the scene and on photographs (``python bench/detector.py``).
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models import centerface, files, runtime  # before openvino: it keeps openvino from calling home

import openvino  # isort: skip

from common import crowd, media
from models.detector import _lay, fit

Picture = NDArray[np.uint8]
LONG_SIDE = 512
CROWD_EVERY = 25  # frames; those that recall is judged on are others
CLIPS = {"woman.mp4": 50, "man.mp4": 12}  # clip: every so many of its frames


def available() -> bool:
    """Whether NNCF is installed."""
    return importlib.util.find_spec("nncf") is not None


def calibration_pictures() -> Iterator[Picture]:
    """Pictures that the layers' ranges are measured on, (H, W, 3) uint8 BGR."""
    for path, every, first in (
        (crowd.crowd_video(), CROWD_EVERY, 7),
        *((media.sample(clip), every, 0) for clip, every in CLIPS.items()),
    ):
        film, number = cv2.VideoCapture(str(path)), 0
        while film.grab():
            if number % every == first:
                yield np.asarray(film.retrieve()[1], np.uint8)
            number += 1
        film.release()


def byte_input(model: openvino.Model) -> openvino.Model:
    """The same graph, taking bytes: the picture needs no conversion on its way into the network's input."""
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    built: openvino.Model = steps.build()
    return built


def graph(width: int, height: int) -> openvino.Model:
    """CenterFace for (1, height, width, 3) float32."""
    return centerface.build(runtime.read(files.centerface()), files.centerface(), width, height)


def quantise(pictures: Sequence[Picture], *, kept: int = 2) -> openvino.Model:
    """CenterFace in eight bits for bytes of shape (1, 288, 512, 3), but for the last layers, whose numbers are boxes
    and landmarks: so many are ``kept`` as they were. Reshape it for other sizes with ``sized``.
    """
    if not available():
        raise SystemExit("eight bits need NNCF: pip install nncf")
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    width, height = fit(1280, 720, LONG_SIDE).input_size
    inputs = []
    for picture in pictures:
        placed = fit(picture.shape[1], picture.shape[0], LONG_SIDE)
        canvas = np.zeros((1, height, width, 3), np.float32)
        size = (min(placed.content_size[0], width), min(placed.content_size[1], height))
        _lay(picture, canvas[0], size)
        inputs.append(canvas.astype(np.uint8))
    model = byte_input(graph(width, height))
    layers = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    quantised: openvino.Model = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=layers[len(layers) - kept :]),
    )
    return quantised


def sized(model: openvino.Model, width: int, height: int) -> openvino.Model:
    """A copy of the graph for another input size."""
    copy = model.clone()
    copy.reshape([1, height, width, 3])
    return copy


def main() -> int:
    """Quantise and write; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pictures = list(calibration_pictures())
    target = given.out / "detector-int8.xml"
    openvino.save_model(quantise(pictures), target, compress_to_fp16=False)
    for path in (target, target.with_suffix(".bin")):
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    print(f"ranges measured on {len(pictures)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
