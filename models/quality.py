"""How well a face can be judged: size, sharpness, turn, light; and the reason when it cannot."""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Reason = Literal["small", "cut", "turned", "dark", "bright", "blurred"]

_SIDE = 48  # pixels: the measures are taken on a face of this size, whatever its size in the picture
# From the axis of the eyes the nose tip stands out by about as much as half the distance between the eyes.
_NOSE_RELIEF = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of one face in one picture."""

    size_px: float  # the shorter side of its box
    sharpness: float  # 0 all smooth … about 1 as sharp as a face can be at the size the networks see it
    turn: float  # 0 frontal … 1 profile
    roll: float  # degrees; positive: the head leans clockwise in the picture
    brightness: float  # 0 … 1, mean of the face
    contrast: float  # 0 … 1, spread (5th to 95th percentile) of the face
    edge_cut: float  # 0 … 1, how much of the face's box the picture's edge cuts off


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a face must have to be assessed."""

    min_size_px: float = 24.0
    max_edge_cut: float = 0.3
    max_turn: float = 0.62
    min_brightness: float = 0.1
    max_brightness: float = 0.92
    min_contrast: float = 0.06
    min_sharpness: float = 0.2


def assess(picture: NDArray[np.uint8], box: ArrayLike, landmarks: ArrayLike) -> Quality:
    """Measure the face in `box` (x, y, width, height) with `landmarks` (5, 2), both in pixels of `picture`, (H, W, 3)
    uint8 BGR.

    Raises ValueError when the box lies outside the picture.
    """
    x, y, width, height = (float(value) for value in np.asarray(box, np.float32))
    left, right = max(0, int(x)), min(picture.shape[1], math.ceil(x + width))
    top, bottom = max(0, int(y)), min(picture.shape[0], math.ceil(y + height))
    if left >= right or top >= bottom:
        raise ValueError(
            f"the box at {x:.1f}, {y:.1f} lies outside the picture of {picture.shape[1]} × {picture.shape[0]}"
        )
    points = np.asarray(landmarks, np.float64).reshape(5, 2)
    face = _face(picture[top:bottom, left:right])
    low, high = np.percentile(face, (5, 95))
    turn, roll = _pose(points)
    return Quality(
        size_px=min(width, height),
        sharpness=_sharpness(face),
        turn=turn,
        roll=roll,
        brightness=float(face.mean()) / 255,
        contrast=float(high - low) / 255,
        edge_cut=_edge_cut(points, (x, y, width, height), picture.shape[1], picture.shape[0]),
    )


def reason(quality: Quality, limits: Limits | None = None) -> Reason | None:
    """Why this face cannot be assessed, or None when it can; the first one that somebody could do something about."""
    limits = Limits() if limits is None else limits
    if quality.size_px < limits.min_size_px:
        return "small"
    if quality.edge_cut > limits.max_edge_cut:
        return "cut"
    if quality.turn > limits.max_turn:
        return "turned"
    if quality.brightness > limits.max_brightness:
        return "bright"
    if quality.brightness < limits.min_brightness or quality.contrast < limits.min_contrast:
        return "dark" if quality.brightness < 0.5 else "bright"
    if quality.sharpness < limits.min_sharpness:
        return "blurred"
    return None


def score(quality: Quality) -> float:
    """One number, 0 to 1, by which a good crop counts more than a poor one: the product of how good each measure is."""
    parts = (
        _ramp(quality.size_px, 16.0, 112.0),
        _ramp(quality.sharpness, 0.1, 0.6),
        _ramp(1.0 - quality.turn, 0.2, 0.85),
        _ramp(quality.brightness, 0.04, 0.25),
        _ramp(1.0 - quality.brightness, 0.04, 0.2),
        _ramp(quality.contrast, 0.04, 0.25),
        _ramp(1.0 - quality.edge_cut, 0.5, 1.0),
    )
    return math.prod(parts)


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _face(cut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The face in grey at the fixed size."""
    # Large faces are thinned first: averaging a million pixels would cost more than all the rest.
    step = max(1, min(cut.shape[:2]) // (3 * _SIDE))
    thinned = np.ascontiguousarray(cut[::step, ::step])
    shrinks = min(thinned.shape[:2]) > _SIDE
    small = cv2.resize(thinned, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.asarray(grey, np.uint8)


def _sharpness(face: NDArray[np.uint8]) -> float:
    """How much of the variation between neighbours a little blurring takes away (after Crété-Roffet et al., 2007)."""
    inner = face[4:-4, 4:-4].astype(np.float32)
    blurred = cv2.blur(inner, (5, 5))
    lost = total = 0.0
    for axis in (0, 1):
        before = np.abs(np.diff(inner, axis=axis))
        after = np.abs(np.diff(blurred, axis=axis))
        total += float(before.sum())
        lost += float(np.maximum(before - after, 0).sum())
    return lost / total if total > 0 else 0.0


def _pose(points: NDArray[np.float64]) -> tuple[float, float]:
    """(turn, roll in degrees) from where the nose stands between the eyes and the mouth corners."""
    eyes = points[1] - points[0]
    roll = math.degrees(math.atan2(eyes[1], eyes[0]))
    middle_eyes, middle_mouth = (points[0] + points[1]) / 2, (points[3] + points[4]) / 2
    down = middle_mouth - middle_eyes
    length = float(np.hypot(*down))
    if length < 1e-6:
        return 1.0, roll
    down = down / length
    across = np.array([down[1], -down[0]])  # towards the eye that is right in the picture
    spans = [abs(float((points[1] - points[0]) @ across)), abs(float((points[4] - points[3]) @ across))]
    half = max(sum(spans) / 4, 0.02 * length)
    aside = abs(float((points[2] - (middle_eyes + middle_mouth) / 2) @ across))
    return min(1.0, math.atan2(aside, half * _NOSE_RELIEF) / (math.pi / 2)), roll


def _edge_cut(points: NDArray[np.float64], box: tuple[float, float, float, float], width: int, height: int) -> float:
    """The part of the whole face outside the picture, judged by the landmarks: a detector's box ends at the edge."""
    x, y, box_width, box_height = box
    middle = points.mean(axis=0)
    span = float(np.hypot(*((points[3] + points[4]) / 2 - (points[0] + points[1]) / 2)))
    # On whole faces eyes and mouth lie 0.355 of the box's height apart, their middle 0.05 of it below the box's middle.
    whole_height = max(box_height, span / 0.355)
    whole_width = max(box_width, 0.76 * whole_height)
    center_x, center_y = float(middle[0]), float(middle[1]) - 0.05 * whole_height
    margin = 1.0  # a box that ends a pixel before the edge is not cut
    left = center_x - whole_width / 2 if x <= margin else x
    right = center_x + whole_width / 2 if x + box_width >= width - margin else x + box_width
    top = center_y - whole_height / 2 if y <= margin else y
    bottom = center_y + whole_height / 2 if y + box_height >= height - margin else y + box_height
    whole = max(right - left, 1.0) * max(bottom - top, 1.0)
    shown = max(0.0, min(right, width) - max(left, 0)) * max(0.0, min(bottom, height) - max(top, 0))
    return min(1.0, max(0.0, 1.0 - shown / whole))
