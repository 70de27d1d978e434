"""The crowd scene frame by frame: who walks where, and what of each face is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.crowd_cast import FACE_HEIGHT, Box, Clip, Cutout, photo_cutout
from common.crowd_room import BACK_COUNTER, HEIGHT, MIDDLE_COUNTER, WIDTH, counter, room
from common.crowd_turn import TurningHead
from common.sources.base import Pixels
from common.sources.opencv import cv2

ROUND_S = 25.0  # every movement comes back to its beginning after this
FRAME_RATE = 30
FRAMES = int(ROUND_S * FRAME_RATE)

Path = Callable[[float], tuple[float, float, float]]  # time (s) -> face's middle x, chin y, height, pixels


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one person in a frame: face box (not clipped), visible part, how far turned away."""

    person: int
    name: str
    box: Box
    visible: float
    turned_degrees: float


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody's way through the scene; ``layer``: what is higher covers what is lower."""

    name: str
    layer: int
    path: Path


def _wave(time_s: float, turns: int, phase: float = 0.0) -> float:
    return math.sin(2 * math.pi * (turns * time_s / ROUND_S + phase))


def _ease(time_s: float, begin_s: float, end_s: float) -> float:
    part = min(1.0, max(0.0, (time_s - begin_s) / (end_s - begin_s)))
    return part * part * (3 - 2 * part)


def _standing(x: float, chin: float, height: float, sway: float, phase: float) -> Path:
    def path(t: float) -> tuple[float, float, float]:
        size = height * (1 + 0.03 * _wave(t, 2, phase))
        return x + sway * _wave(t, 3, phase), chin + 0.02 * height * _wave(t, 7, phase), size

    return path


def _walking(x: float, reach: float, chin: float, height: float, phase: float) -> Path:
    """To and fro once a round; steps rock the head."""

    def path(t: float) -> tuple[float, float, float]:
        return x + reach * _wave(t, 1, phase), chin + 0.025 * height * _wave(t, 37, phase), height

    return path


def _visiting(outside: float, inside: float, chin: float, height: float, times: tuple[float, float]) -> Path:
    """In from beyond the edge of the picture at the first time, out again at the second; each way takes 4 s."""

    def path(t: float) -> tuple[float, float, float]:
        here = _ease(t, times[0], times[0] + 4) - _ease(t, times[1], times[1] + 4)
        step = 0.02 * height * _wave(t, 41)
        return outside + (inside - outside) * here, chin + step, height

    return path


BACK, MIDDLE, FRONT = BACK_COUNTER, MIDDLE_COUNTER, HEIGHT
ACTORS = (
    Actor("blonde", 12, _standing(700, BACK - 19, 43, 10, 0.6)),
    Actor("sunglasses", 13, _visiting(1340, 930, BACK - 24, 52, (1.0, 18.0))),
    Actor("surprised", 31, _visiting(1350, 1090, MIDDLE - 44, 86, (7.0, 19.5))),
    Actor("angry", 32, _standing(715, MIDDLE - 46, 102, 14, 0.45)),
    Actor("obama", 33, _walking(330, 205, MIDDLE - 48, 102, 0.25)),
    Actor("biden", 34, _walking(330, 215, MIDDLE - 44, 114, 0.75)),
    Actor("happy", 50, _walking(350, 215, FRONT - 66, 148, 0.0)),
    Actor("hiker", 51, _walking(360, 225, FRONT - 54, 166, 0.5)),
    Actor("woman", 53, _standing(1085, FRONT - 24, 176, 10, 0.7)),
)
CLIPS = {"woman": (375, 750)}  # frames; after how many it begins again (to and fro)
TURN_BEGINS_S, TURN_ENDS_S, TURN_TAKES_S = 9.0, 14.0, 1.6


def turned_degrees(time_s: float) -> float:
    """How far the one who looks away has turned: 0 looks at us, 180 away."""
    away = _ease(time_s, TURN_BEGINS_S, TURN_BEGINS_S + TURN_TAKES_S)
    back = _ease(time_s, TURN_ENDS_S, TURN_ENDS_S + TURN_TAKES_S)
    return 180.0 * (away - back)


def _to_and_fro(number: int, count: int, period: int) -> int:
    """A clip forwards and backwards, so that it has no seam; ``period`` frames for both."""
    phase = number % period
    return min(phase, period - 1 - phase, count - 1)


class CrowdStage:
    """Makes the frames. Making one takes some milliseconds, preparing some seconds."""

    def __init__(self) -> None:
        self._room = room()
        counters = ((20, BACK, MIDDLE, (134, 146, 156)), (40, MIDDLE, HEIGHT, (92, 110, 128)))
        self._counters = [(layer, top, counter(top, bottom, colour)) for layer, top, bottom, colour in counters]
        self._clips: dict[str, Clip] = {}
        self._photos: dict[str, Cutout] = {}
        for actor in ACTORS:
            # Shrunk well once; what is left to do for each frame is a few per cent.
            largest = max(actor.path(number / FRAME_RATE)[2] for number in range(FRAMES))
            if actor.name in CLIPS:
                self._clips[actor.name] = Clip(largest)
            else:
                self._photos[actor.name] = photo_cutout(actor.name).scaled(largest / FACE_HEIGHT)
        self._turning = TurningHead(self._photos["angry"])

    def frame(self, number: int) -> tuple[Pixels, list[Seen]]:
        """Picture (720, 1280, 3) uint8 BGR, and everybody in it."""
        time_s = number / FRAME_RATE
        canvas = self._room.copy()
        owner = np.zeros((HEIGHT, WIDTH), np.uint8)  # whose pixel it is: 0 nobody's, else person + 1
        boxes: list[Box] = []
        degrees = turned_degrees(time_s)
        counters = list(self._counters)
        for person, actor in enumerate(ACTORS):
            while counters and counters[0][0] < actor.layer:
                _, top, front = counters.pop(0)
                canvas[top : top + len(front)] = front
                owner[top : top + len(front)] = 0
            x, chin, height = actor.path(time_s)
            if actor.name in CLIPS:
                clip = self._clips[actor.name]
                take, scale = clip.cutout(_to_and_fro(number, *CLIPS[actor.name])), 1.0
                left, upper = x - clip.middle, HEIGHT - clip.rows + 1.0
            else:
                take = self._photos[actor.name] if actor.name != "angry" else self._turning.turned(degrees)
                scale = height / take.box[3]
                left = x - (take.box[0] + take.box[2] / 2) * scale
                upper = chin - (take.box[1] + take.box[3]) * scale
            fx, fy, fwidth, fheight = take.box
            boxes.append((left + fx * scale, upper + fy * scale, fwidth * scale, fheight * scale))
            _paint(canvas, owner, take, left, upper, scale, person + 1)
        seen = [
            Seen(person, actor.name, box, _visible(owner, box, person + 1), degrees if actor.name == "angry" else 0.0)
            for person, (actor, box) in enumerate(zip(ACTORS, boxes, strict=True))
        ]
        return canvas, seen


def _paint(
    canvas: Pixels, owner: NDArray[np.uint8], take: Cutout, left: float, upper: float, scale: float, who: int
) -> None:
    """Lay a cutout over the canvas, its corner at a fraction of a pixel, and note whose pixels they are."""
    rows, columns = take.pixels.shape[:2]
    x0, y0 = max(0, math.floor(left)), max(0, math.floor(upper))
    x1 = min(WIDTH, math.ceil(left + columns * scale) + 1)
    y1 = min(HEIGHT, math.ceil(upper + rows * scale) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    move = np.array([[scale, 0, left - x0], [0, scale, upper - y0]], np.float64)
    size = (x1 - x0, y1 - y0)
    moved = cv2.warpAffine(take.pixels, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    alpha = moved[:, :, 3]
    part = canvas[y0:y1, x0:x1]
    behind = cv2.multiply(part, cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2BGR), scale=1 / 255)
    part[:] = cv2.add(behind, cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR))
    owner[y0:y1, x0:x1][alpha > 127] = who


def _visible(owner: NDArray[np.uint8], box: Box, who: int) -> float:
    """The part of a face (the ellipse in its box, a little smaller) that shows."""
    x, y, width, height = box
    x0, y0, x1, y1 = math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)
    level, across = np.mgrid[y0:y1, x0:x1]
    inside = ((across + 0.5 - x - width / 2) / (0.45 * width)) ** 2 + (
        (level + 0.5 - y - height / 2) / (0.45 * height)
    ) ** 2 < 1
    whole = int(inside.sum())
    shown = owner[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    inside = inside[max(0, -y0) :, max(0, -x0) :][: shown.shape[0], : shown.shape[1]]
    return float((inside & (shown == who)).sum()) / whole if whole else 0.0
