"""How well a face can be judged: size, sharpness, turn, light; and the reason when it cannot."""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.crop import halved

Reason = Literal["small", "cut", "turned", "dark", "bright", "blurred"]

_SIDE = 48  # pixels: the measures are taken on a face of this size, whatever its size in the picture
# From the axis of the eyes the nose tip stands out by about as much as half the distance between the eyes.
_NOSE_RELIEF = 1.0
# A whole face in parts of its box's height: from eyes to mouth, the landmarks' middle below the box's, the box's width.
_EYES_TO_MOUTH, _MIDDLE_BELOW, _WIDTH = 0.355, 0.05, 0.76


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of one face in one picture."""

    size_px: float  # the shorter side of its box
    sharpness: float  # 0 all smooth … about 1 as sharp as a face can be at the size the networks see it
    turn: float  # 0 frontal … 1 profile
    roll: float  # degrees; positive: the head leans clockwise in the picture
    brightness: float  # 0 … 1, mean of the face
    contrast: float  # 0 … 1, twice the standard deviation of the face: 1 is half black, half white
    edge_cut: float  # 0 … 1, how much of the face's box the picture's edge cuts off


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a face must have to be assessed."""

    min_size_px: float = 24.0
    max_edge_cut: float = 0.25
    max_turn: float = 0.62
    min_brightness: float = 0.1
    max_brightness: float = 0.92
    min_contrast: float = 0.06
    min_sharpness: float = 0.26


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
    points: list[list[float]] = np.asarray(landmarks, np.float64).reshape(5, 2).tolist()
    face = _face(picture[top:bottom, left:right])
    mean, spread = cv2.meanStdDev(face)
    turn, roll = _pose(points)
    return Quality(
        size_px=min(width, height),
        sharpness=_sharpness(face),
        turn=abs(turn),
        roll=roll,
        brightness=float(mean[0, 0]) / 255,
        contrast=min(1.0, 2 * float(spread[0, 0]) / 255),
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
        _ramp(quality.sharpness, 0.15, 0.55),
        _ramp(1.0 - quality.turn, 0.2, 0.85),
        _ramp(quality.brightness, 0.04, 0.25),
        _ramp(1.0 - quality.brightness, 0.04, 0.2),
        _ramp(quality.contrast, 0.04, 0.25),
        _ramp(1.0 - quality.edge_cut, 0.5, 1.0),
    )
    return math.prod(parts)


def turned(landmarks: ArrayLike) -> float:
    """How far the face with these landmarks, (5, 2) pixels, is turned: -1 to 1, negative to the person's own right."""
    points: list[list[float]] = np.asarray(landmarks, np.float64).reshape(5, 2).tolist()
    return _pose(points)[0]


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _face(cut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The face in grey at the fixed size."""
    # Large faces are thinned first: averaging a million pixels would cost more than all the rest.
    step = max(1, min(cut.shape[:2]) // (2 * _SIDE))
    thinned = cut if step == 1 else np.ascontiguousarray(cut[::step, ::step])
    grey = cv2.cvtColor(thinned, cv2.COLOR_BGR2GRAY)
    while min(grey.shape) >= 2 * _SIDE:
        grey = halved(np.asarray(grey, np.uint8))  # many times quicker than averaging areas of any other size
    shrinks = min(grey.shape) > _SIDE
    face = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(face, np.uint8)


def _sharpness(face: NDArray[np.uint8]) -> float:
    """How much of the variation between neighbours a little blurring takes away (after Crété-Roffet et al., 2007)."""
    inner = face[4:-4, 4:-4]
    blurred = cv2.blur(inner, (5, 5))
    sharpness = 1.0
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        before = cv2.absdiff(inner[one], inner[other])
        after = cv2.absdiff(blurred[one], blurred[other])
        total = cv2.sumElems(before)[0]
        lost = cv2.sumElems(cv2.subtract(before, after))[0]  # subtract stops at zero
        sharpness = min(
            sharpness, lost / total if total > 0 else 0.0
        )  # motion blurs one direction only: the worse one counts
    return sharpness


def _pose(points: list[list[float]]) -> tuple[float, float]:
    """(turn, roll in degrees) from where the nose stands between the eyes and the mouth corners; turned to the person's
    own right is negative."""
    (left_x, left_y), (right_x, right_y), (nose_x, nose_y), (corner_x, corner_y), (other_x, other_y) = points
    roll = math.degrees(math.atan2(right_y - left_y, right_x - left_x))
    down_x = (corner_x + other_x - left_x - right_x) / 2
    down_y = (corner_y + other_y - left_y - right_y) / 2
    length = math.hypot(down_x, down_y)
    if length < 1e-6:
        return 1.0, roll
    # Distances across the face: at right angles to the line from between the eyes to between the mouth corners.
    across_x, across_y = down_y / length, -down_x / length
    eyes = abs((right_x - left_x) * across_x + (right_y - left_y) * across_y)
    mouth = abs((other_x - corner_x) * across_x + (other_y - corner_y) * across_y)
    middle_x = (left_x + right_x + corner_x + other_x) / 4
    middle_y = (left_y + right_y + corner_y + other_y) / 4
    aside = (nose_x - middle_x) * across_x + (nose_y - middle_y) * across_y
    half = max((eyes + mouth) / 4, 0.02 * length)
    return math.atan2(aside, half * _NOSE_RELIEF) / (math.pi / 2), roll


def _edge_cut(points: list[list[float]], box: tuple[float, float, float, float], width: int, height: int) -> float:
    """The part of the whole face outside the picture, judged by the landmarks: a detector's box ends at the edge."""
    x, y, box_width, box_height = box
    margin = 1.0  # a box that ends a pixel before the edge is not cut
    at_left, at_right = x <= margin, x + box_width >= width - margin
    at_top, at_bottom = y <= margin, y + box_height >= height - margin
    if not (at_left or at_right or at_top or at_bottom):
        return 0.0
    eyes_x, eyes_y = (points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2
    mouth_x, mouth_y = (points[3][0] + points[4][0]) / 2, (points[3][1] + points[4][1]) / 2
    whole_height = max(box_height, math.hypot(mouth_x - eyes_x, mouth_y - eyes_y) / _EYES_TO_MOUTH)
    whole_width = max(box_width, _WIDTH * whole_height)
    center_x = (2 * eyes_x + points[2][0] + 2 * mouth_x) / 5
    center_y = (2 * eyes_y + points[2][1] + 2 * mouth_y) / 5 - _MIDDLE_BELOW * whole_height
    left = center_x - whole_width / 2 if at_left else x
    right = center_x + whole_width / 2 if at_right else x + box_width
    top = center_y - whole_height / 2 if at_top else y
    bottom = center_y + whole_height / 2 if at_bottom else y + box_height
    shown_x = max(0.0, min(right, width) - max(left, 0.0)) / max(right - left, 1.0)
    shown_y = max(0.0, min(bottom, height) - max(top, 0.0)) / max(bottom - top, 1.0)
    return min(1.0, max(0.0, 1.0 - shown_x * shown_y))
