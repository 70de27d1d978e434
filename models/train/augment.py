"""Batched augmentation: what detectors' boxes, cameras, codecs, light and hands do to a face.

Everything works on a whole batch (N, 1, H, W) in a few tensor operations; only JPEG goes image by image.
"""

import math

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional


class Augmentation(BaseModel):
    """How strong and how often; a probability is the share of images that a change is applied to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zoom_deviation: float = Field(0.16, ge=0, description="standard deviation of the log of the face's scale")
    zoom_mean: float = Field(-0.03, description="mean of the log of the face's scale; negative: smaller in the crop")
    zoom_range: tuple[float, float] = (0.66, 1.30)
    stretch: float = Field(0.05, ge=0, description="deviation of the log of the ratio of width to height")
    shift: float = Field(0.08, ge=0, description="largest shift, as a share of the frame")
    rotation_deg: float = Field(8.0, ge=0, description="standard deviation of the rotation")
    light: float = Field(0.3, ge=0, le=1, description="probability of light from one side")
    sharpness: float = Field(0.4, ge=0, le=1, description="probability of blurring or sharpening")
    low_resolution: float = Field(0.15, ge=0, le=1, description="probability of passing through 16 to 40 pixels")
    jpeg: float = Field(0.12, ge=0, le=1, description="probability of JPEG at quality 15 to 70")
    noise: float = Field(0.3, ge=0, le=1, description="probability of sensor noise")
    hand: float = Field(0.12, ge=0, le=1, description="probability of a hand-like shape over part of the face")
    patch: float = Field(0.15, ge=0, le=1, description="probability of a rectangle showing another image")

    def __call__(self, faces: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Augment faces (N, 1, H, W), grey 0..1, to (N, 1, size, size), grey 0..1."""
        faces = self._warp(faces, size, generator)
        faces = self._cover(faces, generator)
        faces = self._relight(faces, generator)
        faces = self._sharpen(faces, generator)
        faces = self._shrink(faces, generator)
        faces = self._add_noise(faces, generator)
        return self._compress(faces, generator)

    def _warp(self, faces: Tensor, size: int, generator: torch.Generator) -> Tensor:
        count = len(faces)
        normal = torch.randn(count, 3, generator=generator)
        zoom = (self.zoom_mean + self.zoom_deviation * normal[:, 0]).exp().clamp(*self.zoom_range)
        stretch = (self.stretch * normal[:, 1]).exp().sqrt()
        angle = torch.deg2rad((self.rotation_deg * normal[:, 2]).clamp(-3 * self.rotation_deg, 3 * self.rotation_deg))
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
        shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * 2 * self.shift
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack(
            [
                torch.stack([mirror * cos / (zoom * stretch), -mirror * sin / zoom, shift[:, 0]], dim=1),
                torch.stack([sin / zoom, cos * stretch / zoom, shift[:, 1]], dim=1),
            ],
            dim=1,
        )
        grid = functional.affine_grid(theta, [count, 1, size, size], align_corners=False)
        # The run-time crop replicates at the border of the picture, but mostly it finds hair and background there.
        edge = "border" if torch.rand((), generator=generator) < 0.6 else "reflection"
        return functional.grid_sample(faces, grid, mode="bilinear", padding_mode=edge, align_corners=False)

    def _cover(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        count, _, size, _ = faces.shape
        axis = torch.linspace(-1, 1, size)
        x, y = axis[None, None, None, :], axis[None, None, :, None]

        def uniform(low: float, high: float) -> Tensor:
            return (torch.rand(count, generator=generator) * (high - low) + low)[:, None, None, None]

        # Hands come from below or from the sides; one that hides eyes and mouth together would leave nothing to see.
        angle, along, across = uniform(0, math.pi), uniform(0.3, 0.8), uniform(0.15, 0.4)
        dx, dy = x - uniform(-0.9, 0.9), y - uniform(-0.1, 1.1)
        inside = ((dx * angle.cos() + dy * angle.sin()) / along) ** 2 + (
            (dy * angle.cos() - dx * angle.sin()) / across
        ) ** 2
        softness = uniform(4.0, 20.0)
        chosen = (torch.rand(count, generator=generator) < self.hand).float()[:, None, None, None]
        mask = torch.sigmoid((1 - inside) * softness) * chosen
        skin = faces.mean(dim=(2, 3), keepdim=True) * uniform(0.7, 1.3)
        texture = functional.interpolate(torch.randn(count, 1, 6, 6, generator=generator), size=size, mode="bilinear")
        faces = faces * (1 - mask) + (skin + 0.06 * texture).clamp(0, 1) * mask

        half_width, half_height = uniform(0.12, 0.35), uniform(0.12, 0.35)
        rectangle = ((x - uniform(-1, 1)).abs() < half_width) & ((y - uniform(-1, 1)).abs() < half_height)
        rectangle &= (torch.rand(count, generator=generator) < self.patch)[:, None, None, None]
        return torch.where(rectangle, faces.roll(1, dims=0).flip(2), faces)

    def _relight(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        count, _, size, _ = faces.shape
        random = torch.rand(count, 6, 1, 1, 1, generator=generator)
        gain = 0.5 + 0.8 * random[:, 0]
        brightness = 0.25 * (random[:, 1] - 0.5)
        gamma = ((random[:, 2] - 0.5) * 1.0).exp()
        mean = faces.mean(dim=(2, 3), keepdim=True)
        faces = ((faces - mean) * gain + mean + brightness).clamp(1e-3, 1) ** gamma
        axis = torch.linspace(-1, 1, size)
        angle = 2 * math.pi * random[:, 3]
        slope = 0.6 * random[:, 4] * (random[:, 5] < self.light)
        ramp = axis[None, None, None, :] * angle.cos() + axis[None, None, :, None] * angle.sin()
        return (faces * (1 + slope * ramp)).clamp(0, 1)

    def _sharpen(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        count = len(faces)
        deviation = 0.6 + 1.2 * float(torch.rand((), generator=generator))
        reach = torch.arange(-3, 4, dtype=torch.float32)
        kernel = (-(reach**2) / (2 * deviation**2)).exp()
        kernel = kernel / kernel.sum()
        padded = functional.pad(faces, (3, 3, 3, 3), mode="replicate")
        blurred = functional.conv2d(functional.conv2d(padded, kernel[None, None, None, :]), kernel[None, None, :, None])
        amount = torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1
        amount = amount * (torch.rand(count, 1, 1, 1, generator=generator) < self.sharpness)
        return (faces + amount * (faces - blurred)).clamp(0, 1)

    def _shrink(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.nonzero(torch.rand(len(faces), generator=generator) < self.low_resolution).flatten()
        if len(rows) == 0:
            return faces
        size = faces.shape[-1]
        small = int(torch.randint(16, 40, (), generator=generator))
        shrunk = functional.interpolate(faces[rows], size=small, mode="bilinear", antialias=True)
        faces = faces.clone()
        faces[rows] = functional.interpolate(shrunk, size=size, mode="bilinear")
        return faces

    def _add_noise(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        amount = 0.035 * torch.rand(len(faces), 1, 1, 1, generator=generator)
        amount = amount * (torch.rand(len(faces), 1, 1, 1, generator=generator) < self.noise)
        return (faces + amount * torch.randn(faces.shape, generator=generator)).clamp(0, 1)

    def _compress(self, faces: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.nonzero(torch.rand(len(faces), generator=generator) < self.jpeg).flatten().tolist()
        qualities = torch.randint(15, 70, (len(rows),), generator=generator).tolist()
        faces = faces.clone()
        for row, quality in zip(rows, qualities, strict=True):
            pixels = np.rint(faces[row, 0].numpy() * 255).astype(np.uint8)
            written, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if not written:
                raise RuntimeError("OpenCV could not encode a JPEG; is this build of OpenCV complete?")
            decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
            faces[row, 0] = torch.from_numpy(np.asarray(decoded, dtype=np.float32) / 255)
        return faces
