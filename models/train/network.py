"""The expression network: a small residual network with squeeze-excitation for grey faces.

He et al. 2016 (residual networks); Hu et al. 2018 (squeeze-excitation); He et al. 2019 (average pooling in shortcuts).
Two more shapes are those of networks that know many faces, so that a run can begin with that: dlib's face recognition
network, and MobileNet (Howard et al. 2017).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.expressions import EXPRESSIONS

CONTRAST_FLOOR = 0.04
"""Added to a face's standard deviation (grey 0..1), so that noise on an even surface does not get full contrast."""


def normalize(faces: Tensor) -> Tensor:
    """Each face (N, 1, S, S) minus its mean, divided by its contrast: takes exposure and most of the gain away."""
    centred = faces - faces.mean(dim=(2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
    return centred / (deviation + CONTRAST_FLOOR)


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the whole face shows."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(8, channels // reduction))
        self.excite = nn.Linear(self.squeeze.out_features, channels)

    def forward(self, features: Tensor) -> Tensor:
        gates = torch.sigmoid(self.excite(functional.relu(self.squeeze(features.mean(dim=(2, 3))))))
        return features * gates[:, :, None, None]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and squeeze-excitation around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.gates = SqueezeExcitation(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        change = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        change = self.gates(self.norm2(self.conv2(change)))
        return functional.relu(change + self.shortcut(features), inplace=True)


class ExpressionNet(nn.Module):
    """Grey faces (N, 1, S, S), 0..1, to logits (N, 7).

    `both` also gives the logits of a second head, which learns the FER2013 label as an auxiliary task and is left
    out of the exported graph.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        dropout: float = 0.0,
        stem: str = "plain",
        enlarged: float = 1.0,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise ValueError(f"widths and depths must be equally long, got {widths} and {depths}")
        self.enlarged = enlarged
        self.frozen = frozen
        self.stem = self._deep_stem(widths[0]) if stem == "deep" else self._stem(widths[0])
        blocks: list[nn.Module] = []
        channels = self._stem_width(widths[0])
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(self._block(channels, width, stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, len(EXPRESSIONS))
        self.fer2013_head = nn.Linear(channels, len(EXPRESSIONS))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def train(self, mode: bool = True) -> Self:
        """As usual, but what is frozen keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.stem.train(False)
            self.blocks[: self.frozen].train(False)
        return self

    def keeps(self, name: str) -> bool:
        """Whether the weights of that name are frozen."""
        part, _, rest = name.partition(".")
        return bool(self.frozen) and (part == "stem" or (part == "blocks" and int(rest.split(".")[0]) < self.frozen))

    def _stem_width(self, width: int) -> int:
        """Channels that the stem gives to the first stage, of that width."""
        return width

    def _stem(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def _deep_stem(self, width: int) -> nn.Sequential:
        """Looks at every pixel before it halves the picture; eyes and mouths of 48 pixel faces are small."""
        return nn.Sequential(
            nn.Conv2d(1, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )  # fmt: skip

    def _block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        return ResidualBlock(inputs, outputs, stride)

    def features(self, faces: Tensor) -> Tensor:
        """The pooled features (N, channels) behind both heads."""
        faces = normalize(faces)
        if self.enlarged != 1.0:
            faces = functional.interpolate(faces, size=round(int(faces.shape[-1]) * self.enlarged), mode="bilinear")
        if not self.frozen:
            maps: Tensor = self.blocks(self.stem(faces))
            return maps.mean(dim=(2, 3))
        with torch.no_grad():
            maps = self.blocks[: self.frozen](self.stem(faces))
        maps = self.blocks[self.frozen :](maps)
        return maps.mean(dim=(2, 3))

    def forward(self, faces: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(faces)))
        return logits

    def both(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both heads, each (N, 7)."""
        features = self.dropout(self.features(faces))
        return self.head(features), self.fer2013_head(features)


class _Widened(nn.Module):
    """The shortcut of dlib's network where a block halves: averages, and zeros for the channels that are new."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, features: Tensor) -> Tensor:
        return functional.pad(functional.avg_pool2d(features, 2), (0, 0, 0, 0, 0, self.new_channels))


class FaceRecognitionBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut, as dlib's network has them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = _Widened(outputs - inputs) if stride == 2 else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        change = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        change = self.norm2(self.conv2(change))
        shortcut = self.shortcut(features)
        # Without padding an even side loses one row and column more than the average does; dlib adds zeros there.
        below, right = shortcut.shape[2] - change.shape[2], shortcut.shape[3] - change.shape[3]
        if below or right:
            change = functional.pad(change, (0, right, 0, below))
        return functional.relu(change + shortcut, inplace=True)


class FaceRecognitionShaped(ExpressionNet):
    """The same with the layers of dlib's face recognition network, or its first ones: widths 32, 64, 128, 256."""

    def _stem(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )

    def _block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        return FaceRecognitionBlock(inputs, outputs, stride)


class SeparableBlock(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 convolution of all; padded as TensorFlow does it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu6(self.norm1(self.conv1(self.before(features))), inplace=True)
        return functional.relu6(self.norm2(self.conv2(features)), inplace=True)


class MobileNetShaped(ExpressionNet):
    """The same with the layers of MobileNet: widths 64, 128, 256, 512, 1024 with 1, 2, 2, 6, 2 blocks."""

    def _stem_width(self, width: int) -> int:
        return width // 2

    def _stem(self, width: int) -> nn.Sequential:
        outputs = self._stem_width(width)
        return nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(1, outputs, 3, stride=2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )

    def _block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        return SeparableBlock(inputs, outputs, stride)


class _Shape(Protocol):
    """What of a run's settings decides the network's layers."""

    @property
    def shape(self) -> str: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def depths(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def stem(self) -> str: ...
    @property
    def enlarged(self) -> float: ...
    @property
    def frozen(self) -> int: ...


def shortened(weights: Mapping[str, Tensor], depths: Sequence[int], target: Sequence[int]) -> dict[str, Tensor]:
    """The weights of a network with fewer blocks: of each stage's ``depths`` blocks the first ``target``.

    ValueError when a stage would need more blocks than there are. A residual network computes much the same without a
    block that changes little (Veit et al. 2016), and soon learns to do without.
    """
    if len(depths) != len(target) or any(few > many for few, many in zip(target, depths, strict=True)):
        raise ValueError(f"blocks {tuple(target)} cannot be taken from {tuple(depths)}")
    kept: dict[int, int] = {}
    first = 0
    for many, few in zip(depths, target, strict=True):
        kept.update({first + place: len(kept) + place for place in range(few)})
        first += many
    found = {}
    for name, values in weights.items():
        part, _, rest = name.partition(".")
        if part != "blocks":
            found[name] = values
            continue
        number, _, layer = rest.partition(".")
        if int(number) in kept:
            found[f"blocks.{kept[int(number)]}.{layer}"] = values
    return found


def new_network(config: _Shape) -> ExpressionNet:
    """The network that a run's settings describe, with random weights."""
    kinds = {"face_recognition": FaceRecognitionShaped, "mobilenet": MobileNetShaped}
    kind = kinds.get(config.shape, ExpressionNet)
    return kind(config.widths, config.depths, config.dropout, config.stem, config.enlarged, config.frozen)
