"""Begins a run with what dlib's face recognition network knows of faces, instead of with random weights.

That network (Davis King, public domain) comes in the package `face_recognition_models`. It was made to ignore
expressions, but its first layers see eyes, brows and mouths that 28 000 small pictures teach only slowly.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import files
from models.dlib_weights import Convolution, read_weights
from models.train.network import FaceRecognitionBlock, FaceRecognitionShaped

CHIP_CONTRAST = 0.22
"""Standard deviation of the grey values (0..1) of the faces that dlib's network was trained on."""


@torch.no_grad()
def start_with_face_recognition(network: FaceRecognitionShaped, faces: Tensor) -> None:
    """Give the network dlib's weights, as far as its layers go.

    dlib's file has its normalization folded into the convolutions. Here each gets it back: as it finds the given
    faces (N, 1, S, S), grey 0..1, a few hundred, so that the network first computes what dlib's computes.
    Raises ModelError when the package is missing, ValueError when the layers are not dlib's.
    """
    layers = iter(read_weights(files.face_recognition()).convolutions)
    first = next(layers)
    # Grey is the same in all three colours; contrast is 1 behind `normalize`.
    grey = Convolution(weights=first.weights.sum(axis=1, keepdims=True) * CHIP_CONTRAST, bias=first.bias)
    pairs: list[tuple[nn.Module, nn.Module, Convolution]] = [(network.stem[0], network.stem[1], grey)]
    for block in network.blocks:
        assert isinstance(block, FaceRecognitionBlock)
        pairs += [(block.conv1, block.norm1, next(layers)), (block.conv2, block.norm2, next(layers))]
    hooks = []
    for convolution, norm, known in pairs:
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        if convolution.weight.shape != known.weights.shape:
            raise ValueError(
                f"a layer has weights {tuple(convolution.weight.shape)}, dlib's has {known.weights.shape}: "
                "widths are 32, 64, 128, 256, and depths at most 3, 4, 3, 3"
            )
        convolution.weight.copy_(torch.from_numpy(known.weights))
        hooks.append(norm.register_forward_pre_hook(_calibration(torch.from_numpy(known.bias))))
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
