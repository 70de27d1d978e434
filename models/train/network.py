"""The expression network: a small residual network with squeeze-excitation for grey faces.

He et al. 2016 (residual networks); Hu et al. 2018 (squeeze-excitation); He et al. 2019 (average pooling in shortcuts).
"""

from collections.abc import Sequence

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

    def __init__(self, widths: Sequence[int], depths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise ValueError(f"widths and depths must be equally long, got {widths} and {depths}")
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(ResidualBlock(channels, width, stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, len(EXPRESSIONS))
        self.fer2013_head = nn.Linear(channels, len(EXPRESSIONS))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, faces: Tensor) -> Tensor:
        """The pooled features (N, channels) behind both heads."""
        maps: Tensor = self.blocks(self.stem(normalize(faces)))
        return maps.mean(dim=(2, 3))

    def forward(self, faces: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(faces)))
        return logits

    def both(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both heads, each (N, 7)."""
        features = self.dropout(self.features(faces))
        return self.head(features), self.fer2013_head(features)
