"""A head that turns away: the cutout wrapped around a cylinder, with hair on the far side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.crowd_cast import Cutout, cut_out
from common.sources.base import Pixels
from common.sources.opencv import cv2

Floats = NDArray[np.float32]


class TurningHead:
    """Turns the head of a cutout about its vertical axis; shoulders stay."""

    def __init__(self, cutout: Cutout) -> None:
        self.cutout = cutout
        x, y, width, height = cutout.box
        rows, columns = cutout.pixels.shape[:2]
        self._alpha: Pixels = np.ascontiguousarray(cutout.pixels[:, :, 3])
        opacity = np.maximum(self._alpha, 1)[:, :, None].astype(np.float32) / 255
        self._middle = x + width / 2
        self._radius = 0.64 * width
        self._colour: Floats = np.clip(cutout.pixels[:, :, :3] / opacity, 0, 255).astype(np.float32)
        # The far side: the hair above the forehead, drawn down to the neck, darker towards the edges.
        sides = slice(round(x + 0.1 * width), round(x + 0.9 * width))
        hair = self._colour[max(0, round(y - 0.17 * height)) : round(y - 0.03 * height), sides]
        chin = round(y + 0.98 * height)
        far = cv2.resize(hair, (columns, chin), interpolation=cv2.INTER_LINEAR)
        across = (np.arange(columns, dtype=np.float32) - self._middle) / self._radius
        shade = (1 - 0.35 * np.clip(np.abs(across), 0, 1) ** 2)[None, :, None]
        self._far: Floats = self._colour.copy()
        self._far[:chin] = far * shade
        level = np.arange(rows, dtype=np.float32)
        self._head: Floats = np.clip((y + height - level) / (0.08 * height), 0, 1).astype(np.float32)[:, None]

    def turned(self, degrees: float) -> Cutout:
        """Turned by so much: 0 looks at us, 180 away."""
        if degrees < 0.5:
            return self.cutout
        rows, columns = self._alpha.shape
        across = (np.arange(columns, dtype=np.float32) - self._middle) / self._radius
        angle = np.arcsin(np.clip(across, -1, 1)) + np.radians(degrees)
        source = np.where(np.abs(across) < 1, np.sin(angle), across) * self._radius + self._middle
        map_x = np.broadcast_to(source.astype(np.float32), (rows, columns))
        map_y = np.broadcast_to(np.arange(rows, dtype=np.float32)[:, None], (rows, columns))
        near = cv2.remap(self._colour, np.ascontiguousarray(map_x), np.ascontiguousarray(map_y), cv2.INTER_LINEAR)
        # From 60° to 85° the surface leaves the face and reaches the hair; hair beside the cylinder goes along.
        side = np.clip((np.abs(np.degrees(angle)) - 60) / 25, 0, 1)
        side = np.where(np.abs(across) < 1, side, min(1.0, degrees / 60))
        head = near * (1 - side[None, :, None]) + self._far * side[None, :, None]
        mix = self._head[:, :, None]
        colour = np.clip(head * mix + self._colour * (1 - mix), 0, 255).astype(np.uint8)
        return cut_out(colour, self._alpha, self.cutout.box)
