"""Reads dlib's face recognition network from its own weight file and rebuilds it as an OpenVINO graph.

The file is dlib's serialisation of a `loss_metric` network (ResNet with 29 convolutions, made by Davis King, public
domain). After the tag of a layer comes a tensor: the integer 2, four dimensions, then little-endian float32. An
integer is one control byte (low four bits: how many bytes follow, high bit: negative) and its bytes, least significant
first. The layer next to the input comes first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
from numpy.typing import NDArray

from models.runtime import ModelError, check

CHIP_SIZE = 150  # pixels: the side of the network's input
EMBEDDING_SIZE = 128
_MEAN = np.array([122.782, 117.001, 104.298], np.float32)  # RGB, taken off before division by _SCALE
_SCALE = 256.0
_TENSOR_VERSION = 2

# (filters, halves the picture) of each residual block, first block first; each holds two 3×3 convolutions.
_BLOCKS = [(32, False)] * 3 + [(64, True)] + [(64, False)] * 3 + [(128, True)] + [(128, False)] * 2
_BLOCKS += [(256, True)] + [(256, False)] * 2 + [(256, True)]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution with the affine layer behind it folded in."""

    weights: NDArray[np.float32]  # (filters, channels, height, width)
    bias: NDArray[np.float32]  # (filters,)


@dataclass(frozen=True, slots=True)
class Weights:
    """All numbers of the network, in the order in which a picture meets them."""

    convolutions: list[Convolution]
    head: NDArray[np.float32]  # (256, 128): inputs × outputs, no bias


class _Reader:
    """Walks through the bytes of a dlib file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()

    def damaged(self, what: str) -> ModelError:
        return ModelError(
            f"the model file {self.path} is not dlib's face recognition network or is damaged ({what}): "
            "install face_recognition_models==0.3.0 again"
        )

    def places(self, tag: bytes) -> list[int]:
        """Where the data behind each occurrence of a layer's tag (its length byte before it) begins."""
        found, at = [], 0
        needle = bytes([1, len(tag)]) + tag
        while (at := self.data.find(needle, at)) >= 0:
            at += len(needle)
            found.append(at)
        return found

    def integer(self, at: int) -> tuple[int, int]:
        """(the integer at this place, where the next item begins)."""
        if at >= len(self.data):
            raise self.damaged("it ends too early")
        control = self.data[at]
        length = control & 0x0F
        if not 1 <= length <= 8 or control & 0x70 or at + 1 + length > len(self.data):
            raise self.damaged(f"no integer at byte {at}")
        value = int.from_bytes(self.data[at + 1 : at + 1 + length], "little")
        return (-value if control & 0x80 else value), at + 1 + length

    def tensor(self, at: int) -> NDArray[np.float32]:
        """The tensor at this place, flat."""
        version, at = self.integer(at)
        if version != _TENSOR_VERSION:
            raise self.damaged(f"tensor version {version} at byte {at}")
        size = 1
        for _ in range(4):
            dimension, at = self.integer(at)
            size *= dimension
        if not 0 < size <= (len(self.data) - at) // 4:
            raise self.damaged(f"a tensor of {size} numbers at byte {at}")
        return np.frombuffer(self.data, "<f4", count=size, offset=at).astype(np.float32)


def read_weights(path: Path) -> Weights:
    """Read the file. Raises ModelError when it is missing, damaged or another network."""
    try:
        reader = _Reader(path)
        check(path)
    except OSError as error:
        raise ModelError(
            f"the model file {path} cannot be read ({error}): install face_recognition_models==0.3.0"
        ) from error
    shapes = [(32, 3, 7)]
    channels = 32
    for filters, _ in _BLOCKS:
        shapes += [(filters, channels, 3), (filters, filters, 3)]
        channels = filters
    convolutions = [reader.tensor(at) for at in reader.places(b"con_4")]
    affines = [reader.tensor(at) for at in reader.places(b"affine_")]
    heads = reader.places(b"fc_2")
    if len(convolutions) != len(shapes) or len(affines) != len(shapes) or len(heads) != 1:
        found = f"{len(convolutions)} convolutions, {len(affines)} affine layers, {len(heads)} fully connected"
        raise reader.damaged(f"{found}; expected {len(shapes)}, {len(shapes)}, 1")
    folded = [
        _fold(reader, numbers, affine, shape)
        for numbers, affine, shape in zip(convolutions, affines, shapes, strict=True)
    ]
    at = heads[0]
    for _ in range(2):  # how many outputs, and whether there is a bias
        _, at = reader.integer(at)
    head = reader.tensor(at)
    if head.size != channels * EMBEDDING_SIZE:
        raise reader.damaged(f"the last layer has {head.size} numbers, expected {channels * EMBEDDING_SIZE}")
    return Weights(convolutions=folded, head=head.reshape(channels, EMBEDDING_SIZE))


def _fold(
    reader: _Reader, numbers: NDArray[np.float32], affine: NDArray[np.float32], shape: tuple[int, int, int]
) -> Convolution:
    """Filters then biases; gamma then beta: the affine layer's factor and shift go into the convolution."""
    filters, channels, size = shape
    count = filters * channels * size * size
    if numbers.size != count + filters or affine.size != 2 * filters:
        raise reader.damaged(
            f"a layer has {numbers.size} and {affine.size} numbers, expected {count + filters} and {2 * filters}"
        )
    gamma, beta = affine[:filters], affine[filters:]
    weights = numbers[:count].reshape(filters, channels, size, size) * gamma[:, None, None, None]
    return Convolution(weights=weights, bias=numbers[count:] * gamma + beta)


def build_graph(weights: Weights, batch: int) -> openvino.Model:
    """The network from (batch, 150, 150, 3) uint8 RGB chips to (batch, 128) float32; a batch of -1 leaves it open."""
    first = weights.convolutions[0]
    # The input's mean and scale go into the first convolution, which has no padding, so that this changes nothing but
    # rounding.
    scaled = first.weights / _SCALE
    bias = first.bias - (scaled * _MEAN[None, :, None, None]).sum(axis=(1, 2, 3))

    chips = ops.parameter([batch, CHIP_SIZE, CHIP_SIZE, 3], np.uint8, name="chips")
    node = ops.transpose(ops.convert(chips, "f32"), np.array([0, 3, 1, 2]))
    node = ops.relu(_convolve(node, Convolution(scaled, bias), stride=2, padding=0))
    node = _pool_max(node)
    side, channels = _halved(_halved(CHIP_SIZE, 7), 3), 32
    rest = iter(weights.convolutions[1:])
    for filters, halves in _BLOCKS:
        inner = ops.relu(_convolve(node, next(rest), stride=2 if halves else 1, padding=0 if halves else 1))
        inner = _convolve(inner, next(rest), stride=1, padding=1)
        if halves:
            node = ops.avg_pool(node, [2, 2], [0, 0], [0, 0], [2, 2], True, "floor")
            shortcut, main = _halved(side, 2), _halved(side, 3)
            side = max(shortcut, main)
            node = _pad(node, side - shortcut, filters - channels)
            inner = _pad(inner, side - main, 0)
        node = ops.relu(ops.add(inner, node))
        channels = filters
    node = ops.reduce_mean(node, np.array([2, 3]), keep_dims=False)
    node = ops.matmul(node, ops.constant(weights.head), False, False)
    return openvino.Model([node], [chips], "face_recognition")


def _halved(side: int, window: int) -> int:
    """The side after a window of this size moves over it in steps of two, without padding."""
    return 1 + (side - window) // 2


def _convolve(node: openvino.Node, convolution: Convolution, *, stride: int, padding: int) -> openvino.Node:
    result = ops.convolution(
        node, ops.constant(convolution.weights), [stride, stride], [padding, padding], [padding, padding], [1, 1]
    )
    return ops.add(result, ops.constant(convolution.bias[None, :, None, None]))


def _pool_max(node: openvino.Node) -> openvino.Node:
    return ops.max_pool(node, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "floor").output(0)


def _pad(node: openvino.Node, pixels: int, channels: int) -> openvino.Node:
    """Zeros below, to the right and behind the channels: dlib adds layers of unequal size so."""
    if not pixels and not channels:
        return node
    zero = np.zeros(4, np.int64)
    return ops.pad(node, zero, np.array([0, channels, pixels, pixels]), "constant", ops.constant(np.float32(0)))
