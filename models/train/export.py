"""From a training run to the files that ship: the ONNX graph and weights to start the next run from.

The graph holds normalization, network, calibration temperature and softmax. Batch normalization is folded into the
convolutions and weights are stored in half precision, which halves the file; the run-time widens them when it compiles.
"""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models import sums
from models.train import data as fer
from models.train.fit import averaged_network, finished, logits_of
from models.train.metrics import best_temperature
from models.train.network import ExpressionNet

INPUT_NAME = "face"
OUTPUT_NAME = "probabilities"


class _HalfConvolution(nn.Module):
    """A convolution whose weights are kept in half precision and computed with in single."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Buffer(convolution.weight.detach().half())
        self.bias = nn.Buffer(convolution.bias.detach().clone()) if convolution.bias is not None else None
        self.stride, self.padding, self.groups = convolution.stride, convolution.padding, convolution.groups

    def forward(self, features: Tensor) -> Tensor:
        padding = (int(self.padding[0]), int(self.padding[1]))
        return functional.conv2d(features, self.weight.float(), self.bias, self.stride, padding, groups=self.groups)


class _Graph(nn.Module):
    """What the file computes: faces (N, 1, S, S), grey 0..1, to calibrated probabilities (N, 7)."""

    def __init__(self, network: ExpressionNet, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, faces: Tensor) -> Tensor:
        return torch.softmax(self.network(faces) / self.temperature, dim=1)


def folded(network: ExpressionNet) -> ExpressionNet:
    """A copy that computes the same without batch normalization and keeps its convolutions in half precision."""
    network = copy.deepcopy(network).eval()
    for place in range(len(network.stem) - 1):
        if isinstance(network.stem[place], nn.Conv2d):
            network.stem[place] = _fused(network.stem[place], network.stem[place + 1])
            network.stem[place + 1] = nn.Identity()
    for block in network.blocks:
        for number in "12":
            fused = _fused(getattr(block, f"conv{number}"), getattr(block, f"norm{number}"))
            setattr(block, f"conv{number}", fused)
            setattr(block, f"norm{number}", nn.Identity())
        shortcut = getattr(block, "shortcut", None)
        if isinstance(shortcut, nn.Sequential):
            block.shortcut = nn.Sequential(shortcut[0], _fused(shortcut[1], shortcut[2]))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, _HalfConvolution(child))
    return network


def _fused(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def write_onnx(network: ExpressionNet, temperature: float, size: int, path: Path) -> None:
    """Write the shipped graph for faces of (N, 1, size, size)."""
    graph = _Graph(folded(network), temperature).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The newer exporter needs two more packages and gives the same graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Sides do not depend on N: what is read of them while the graph is drawn stays true.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            graph,
            (torch.zeros(1, 1, size, size),),
            path,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "faces"}, OUTPUT_NAME: {0: "faces"}},
            opset_version=17,
            do_constant_folding=False,
            dynamo=False,
        )


def without_prior(network: ExpressionNet, shares: NDArray[np.floating], adjustment: float) -> ExpressionNet:
    """A copy that favours rare expressions: each logit minus ``adjustment`` × log of its share (7,) of the votes.

    0 leaves the network as it is, 1 takes away all that it knows about how common an expression is (Menon et al. 2021).
    """
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.head.bias.sub_(torch.from_numpy(np.log(shares)).float(), alpha=adjustment)
    return network


def export(run: Path, data: Path, onnx: Path, start: Path | None = None, adjustment: float = 0.0) -> float:
    """Write the averaged weights of a run as ONNX, calibrated on the validation split; gives the temperature.

    ``run`` is what `finished` takes. A neighbour ``.json`` tells the temperature and the settings of the run. With
    ``start`` also writes the weights, in half precision, for ``fit --start``.
    """
    state = finished(run)
    learned, config = averaged_network(state)
    shares = fer.for_training(fer.load(data / "fer_train.npz")).targets().mean(axis=0)
    network = without_prior(learned, shares, adjustment)
    validation = fer.load(data / "fer_val.npz")
    validation = validation.select(validation.judgeable())
    temperature = best_temperature(logits_of(network, validation.images, config.size), validation.truth())
    write_onnx(network, temperature, config.size, onnx)
    card = {
        "temperature": temperature,
        "prior_adjustment": adjustment,
        "head_bias": [round(float(value), 6) for value in network.head.bias.detach()],
        "epochs": state.get("epoch"),  # unknown of a file that --start wrote
        "run": state["config"],
    }
    onnx.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    sums.write(onnx.parent, [onnx.name])
    if start is not None:
        halves = {name: v.half() if v.is_floating_point() else v for name, v in learned.state_dict().items()}
        torch.save({"config": state["config"], "average": halves}, start)
    return temperature
