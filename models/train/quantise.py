"""The shipped network in eight bits: NNCF measures the range of each layer on training faces and rounds to it.

Processors that add up products of eight bits themselves (VNNI, AMX) take half the time that bfloat16 takes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models import runtime, sums  # before openvino: it keeps openvino from calling home
from models.expression import ExpressionClassifier, eight_bits
from models.train import data as fer
from models.train.augment import Augmentation
from models.train.evaluate import cut_all
from models.train.metrics import Scores, score

import openvino  # isort: skip

FACES = 600  # that ranges are measured on
MOST_LOST = 0.003  # accuracy that eight bits may cost
_NORMALIZATION = ["ReduceMean", "Subtract", "Multiply", "Divide", "Sqrt"]
"""Layers that keep their precision: dim faces are made out by small differences."""
_DEPTHWISE = "GroupConvolution"
_EARLY = 4
"""So many depthwise layers, the first ones, keep it, too: in eight bits they cost half a point, and save no time."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What eight bits cost on the validation split: scores before and after."""

    before: Scores
    after: Scores

    @property
    def accepted(self) -> bool:
        """Whether the file was written."""
        return self.before.accuracy - self.after.accuracy <= MOST_LOST


def quantise(onnx: Path, data: Path) -> Quantised:
    """Write the network in eight bits beside the ONNX file, unless that costs accuracy; one that was there goes.

    ``data`` is a directory with ``fer_train.npz``, on which ranges are measured, and ``fer_val.npz``, on which both are
    judged. Raises FileNotFoundError or ValueError for other data, ModelError for another file.
    """
    import nncf  # takes seconds

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model, size = runtime.read(onnx), ExpressionClassifier(onnx, precision="f32").size
    depthwise = [layer.get_friendly_name() for layer in model.get_ordered_ops() if layer.get_type_name() == _DEPTHWISE]
    train, validation = (fer.load(data / name) for name in ("fer_train.npz", "fer_val.npz"))
    faces = nncf.Dataset(list(calibration_faces(fer.for_training(train).images, size)[:, None]))
    in_eight_bits = nncf.quantize(
        model,
        faces,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=FACES,
        ignored_scope=nncf.IgnoredScope(types=_NORMALIZATION, names=depthwise[:_EARLY], validate=False),
    )
    target = eight_bits(onnx)
    openvino.save_model(in_eight_bits, target, compress_to_fp16=False)
    written = (target, target.with_suffix(".bin"))
    sums.write(target.parent, [path.name for path in written])
    validation = validation.select(validation.judgeable())
    found = Quantised(*(_scores(path, validation) for path in (onnx, target)))
    if not found.accepted:
        for path in written:
            path.unlink()
        sums.write(target.parent, [])
    return found


def calibration_faces(images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Some of the faces (N, H, W), as detectors and cameras could show them: (FACES, 1, size, size), grey 0..1."""
    chosen = np.random.default_rng(0).choice(len(images), FACES, replace=len(images) < FACES)
    faces = torch.from_numpy(images[chosen])[:, None].float() / 255
    seen: NDArray[np.float32] = Augmentation()(faces, size, torch.Generator().manual_seed(0)).numpy()
    return seen


def _scores(path: Path, validation: fer.FerData) -> Scores:
    classifier = ExpressionClassifier(path, precision="f32")
    return score(classifier.classify(cut_all(validation.images, classifier.size)), validation.truth())
