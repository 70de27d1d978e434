"""The hall in which the crowd scene plays: a wall, and two counters behind which people stand."""

from __future__ import annotations

import numpy as np

from common.sources.base import Pixels
from common.sources.opencv import cv2

WIDTH, HEIGHT = 1280, 720
BACK_COUNTER, MIDDLE_COUNTER = 250, 456  # upper edges of the two counters, pixels


def room() -> Pixels:
    """The empty hall, (720, 1280, 3) uint8 BGR."""
    level, across = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = 1 - 0.18 * np.abs(across / WIDTH - 0.42) - 0.22 * level / HEIGHT
    picture = np.array([196, 205, 208], np.float32) * light[:, :, None]
    for left in range(70, WIDTH, 250):  # windows with a bit of sky
        cv2.rectangle(picture, (left - 6, 22), (left + 156, 196), (150, 160, 168), -1, cv2.LINE_AA)
        sky = np.linspace(0, 1, 160, dtype=np.float32)[:, None, None]
        picture[30:190, left : left + 150] = np.array([226, 208, 186]) * (1 - sky) + np.array([216, 220, 216]) * sky
        cv2.line(picture, (left + 75, 30), (left + 75, 190), (150, 160, 168), 5, cv2.LINE_AA)
        cv2.line(picture, (left, 110), (left + 150, 110), (150, 160, 168), 5, cv2.LINE_AA)
    blurred: Pixels = cv2.GaussianBlur(picture, (0, 0), 2.2).astype(np.uint8)  # the wall is far away
    return blurred


def counter(top: int, bottom: int, colour: tuple[int, int, int]) -> Pixels:
    """A counter over the whole width, (bottom - top, 1280, 3) uint8 BGR."""
    level, across = np.mgrid[0 : bottom - top, 0:WIDTH].astype(np.float32)
    light = 1 - 0.22 * level / (bottom - top) - 0.12 * np.abs(across / WIDTH - 0.42)
    front = np.array(colour, np.float32) * light[:, :, None]
    line = [value * 0.86 for value in colour]
    for left in range(0, WIDTH, 160):  # panels
        cv2.rectangle(front, (left + 10, 34), (left + 150, bottom - top + 20), line, 2, cv2.LINE_AA)
    front[:14] = np.array(colour, np.float32) * 1.22  # the board on top
    front[14:22] *= np.linspace(0.72, 1, 8, dtype=np.float32)[:, None, None]
    pixels: Pixels = np.clip(front, 0, 255).astype(np.uint8)
    return pixels
