"""Faces drawn onto a picture: a box in the expression's colour, a tab with name and word, marks for the selected one.

Pure functions, used by the window, the snapshot and the annotated video. Sizes follow one ``unit``, the height of the
text in pixels, so that a drawing looks alike at 480 lines and at 2160.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from common import words
from common.expressions import COLOURS
from common.lettering import Colour, fitted, line_height, paste, patch
from common.messages import Face, Result

INK: Colour = (245, 245, 245)
QUIET: Colour = (178, 178, 178)
GROUND: Colour = (30, 28, 26)
GREY: Colour = (150, 150, 150)  # of boxes that tell no expression

_SPOTS = 6  # places a tab may have beside its face


class Rect(NamedTuple):
    """A rectangle in whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def holds(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point lies inside, or at most ``margin`` pixels beside."""
        return (
            self.x - margin <= x < self.x + self.width + margin and self.y - margin <= y < self.y + self.height + margin
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where a face was drawn: its box, its tab, and which of the places beside the face the tab took."""

    box: Rect
    tab: Rect
    spot: int


def unit_for(width: int, height: int) -> int:
    """Return the height of text, in pixels, that is readable in a picture of this size without covering it."""
    return max(12, round(min(height / 45, width / 60)))


def annotate(picture: NDArray[np.uint8], result: Result, *, selected: int | None = None) -> NDArray[np.uint8]:
    """Return a copy of the picture, (height, width, 3) uint8 BGR, with the result's faces drawn onto it.

    Args:
        result: its boxes are scaled if the picture has another size than the result says.
        selected: track of the face that gets corner marks.
    """
    canvas = picture.copy()
    height, width = canvas.shape[:2]
    draw_faces(canvas, result, Rect(0, 0, width, height), unit_for(width, height), selected=selected)
    return canvas


def draw_faces(
    canvas: NDArray[np.uint8],
    result: Result,
    area: Rect,
    unit: int,
    *,
    selected: int | None = None,
    before: dict[int, Drawn] | None = None,
) -> dict[int, Drawn]:
    """Draw a result's faces into that area of the canvas which shows its picture; return where, by track.

    Args:
        before: what the previous call returned: a tab keeps its place beside its face unless another is clearly better.
    """
    scale_x, scale_y = area.width / result.width, area.height / result.height
    boxes = {face.track: _scaled(face, area, scale_x, scale_y) for face in result.faces}
    # Small faces first: the boxes of near ones, and of the selected one, end on top.
    ordered = sorted(result.faces, key=lambda face: (face.track == selected, face.box[2] * face.box[3]))
    for face in ordered:
        _draw_box(canvas, area, boxes[face.track], face, unit, face.track == selected)
    drawn: dict[int, Drawn] = {}
    taken: list[Rect] = []
    for face in reversed(ordered):
        tab = tab_of(face, unit, area.width)
        size = (tab.shape[1], tab.shape[0])
        last = before.get(face.track) if before else None
        gap = _line(unit)
        spot, place = _place(
            boxes, face.track, size, area, taken, gap, last.spot if last else None, face.track == selected
        )
        taken.append(place)
        drawn[face.track] = Drawn(boxes[face.track], place, spot)
        view = canvas[area.y : area.y + area.height, area.x : area.x + area.width]
        paste(view, tab, place.x - area.x, place.y - area.y)
    return drawn


def colour_of(face: Face) -> Colour:
    """Return the colour of a face's box, BGR."""
    if face.expression.status == "ok" and face.expression.label:
        return bgr(face.expression.label)
    return GREY


def bgr(expression: str) -> Colour:
    """Return an expression's colour of the palette, as OpenCV counts: blue, green, red."""
    red, green, blue = COLOURS[expression]
    return blue, green, red


def tab_of(face: Face, unit: int, limit: int) -> NDArray[np.uint8]:
    """Return the dark tab of a face with its name and word, (height, width, 3) uint8 BGR, at most ``limit`` wide."""
    name, word = words.who(face.identity), words.looks(face.expression)
    if name == word == words.WAITING:
        name = ""
    colour = colour_of(face) if face.expression.status == "ok" and face.expression.label else None
    return _tab(name, face.identity.status == "known", word, colour, unit, limit)


@lru_cache(maxsize=256)
def _tab(name: str, known: bool, word: str, colour: Colour | None, unit: int, limit: int) -> NDArray[np.uint8]:
    pad, gap, mark = max(3, unit // 3), max(4, unit // 2), max(5, round(unit * 0.55))
    height = line_height(unit) + 2 * (unit // 12)
    around = 2 * pad + (mark + gap if colour else 0) + (gap if name else 0)
    word = fitted(word, unit, max(unit, limit - around))
    word_pixels = patch(word, unit, INK, GROUND)
    room = min(limit - around - word_pixels.shape[1], 16 * unit)
    weight = 600 if known else 400
    name_pixels = patch(fitted(name, unit, max(0, room), weight), unit, INK if known else QUIET, GROUND, weight)
    tab = np.empty((height, around + name_pixels.shape[1] + word_pixels.shape[1], 3), np.uint8)
    tab[:] = GROUND
    x, y = pad, (height - line_height(unit)) // 2
    if colour:
        top = (height - mark) // 2
        tab[top : top + mark, x : x + mark] = colour
        x += mark + gap
    if name:
        paste(tab, name_pixels, x, y)
        x += name_pixels.shape[1] + gap
    paste(tab, word_pixels, x, y)
    tab.setflags(write=False)
    return tab


def _line(unit: int) -> int:
    return max(1, round(unit / 9))


def _scaled(face: Face, area: Rect, scale_x: float, scale_y: float) -> Rect:
    x, y, width, height = face.box
    left, top = round(area.x + x * scale_x), round(area.y + y * scale_y)
    return Rect(left, top, max(1, round(width * scale_x)), max(1, round(height * scale_y)))


def _draw_box(canvas: NDArray[np.uint8], area: Rect, box: Rect, face: Face, unit: int, selected: bool) -> None:
    line = _line(unit)
    view = canvas[area.y : area.y + area.height, area.x : area.x + area.width]
    corner, far = (box.x - area.x, box.y - area.y), (box.x + box.width - 1 - area.x, box.y + box.height - 1 - area.y)
    if face.expression.status == "cannot_assess":
        _dashed(view, corner, far, line, unit)
    elif face.expression.status == "ok" and face.expression.label:
        # A dark rim keeps the line visible on any ground.
        cv2.rectangle(view, corner, far, GROUND, line + 2)
        cv2.rectangle(view, corner, far, colour_of(face), line)
    else:
        cv2.rectangle(view, corner, far, GREY, max(1, line // 2))
    if selected:
        _corners(view, corner, far, line, unit)


def _dashed(view: NDArray[np.uint8], corner: tuple[int, int], far: tuple[int, int], line: int, unit: int) -> None:
    (left, top), (right, bottom) = corner, far
    # A dash is at most a sixth of a side: on the smallest face the box still reads as dashed.
    dash = max(2, min(unit // 2, (right - left) // 6, (bottom - top) // 6))
    for ground, thickness in ((GROUND, line + 2), (GREY, line)):
        for x in range(left, right, 2 * dash):
            end = min(x + dash, right)
            cv2.line(view, (x, top), (end, top), ground, thickness)
            cv2.line(view, (x, bottom), (end, bottom), ground, thickness)
        for y in range(top, bottom, 2 * dash):
            end = min(y + dash, bottom)
            cv2.line(view, (left, y), (left, end), ground, thickness)
            cv2.line(view, (right, y), (right, end), ground, thickness)


def _corners(view: NDArray[np.uint8], corner: tuple[int, int], far: tuple[int, int], line: int, unit: int) -> None:
    (left, top), (right, bottom) = corner, far
    out = 2 * line + 1
    left, top, right, bottom = left - out, top - out, right + out, bottom + out
    arm = max(4, min(unit, (right - left) // 4, (bottom - top) // 4))
    for colour, thickness in ((GROUND, 2 * line + 2), (INK, 2 * line)):
        for x, step_x in ((left, arm), (right, -arm)):
            for y, step_y in ((top, arm), (bottom, -arm)):
                cv2.line(view, (x, y), (x + step_x, y), colour, thickness)
                cv2.line(view, (x, y), (x, y + step_y), colour, thickness)


def _place(
    boxes: dict[int, Rect],
    track: int,
    size: tuple[int, int],
    area: Rect,
    taken: list[Rect],
    gap: int,
    last: int | None,
    selected: bool,
) -> tuple[int, Rect]:
    """Return the spot, and the place inside the area, where a tab covers other tabs and faces least."""
    box = boxes[track]
    width, height = size
    reach = gap * (4 if selected else 1)
    above, below = box.y - height - reach, box.y + box.height + reach
    left, right = box.x - gap, box.x + box.width + gap - width
    wished = np.array(
        [
            (left, above),
            (right, above),
            (left, below),
            (right, below),
            (box.x + box.width + 2 * gap, box.y),
            (box.x - width - 2 * gap, box.y),
        ],
        np.float32,
    )
    low = np.array((area.x, area.y), np.float32)
    high = np.maximum(low, np.array((area.x + area.width - width, area.y + area.height - height), np.float32))
    places = np.clip(wished, low, high)  # (spots, 2)
    area_px = float(width * height)
    # Covering a tab hides words, covering a face hides a face; its own face is the least harm, and moving costs a bit.
    cost = np.arange(_SPOTS, dtype=np.float32) * 0.04 * area_px
    cost += 4.0 * _overlap(places, size, taken)
    cost += 1.5 * _overlap(places, size, [other for key, other in boxes.items() if key != track])
    cost += 0.7 * _overlap(places, size, [box])
    if last is not None:
        cost[last] -= 0.15 * area_px
    spot = int(cost.argmin())
    x, y = places[spot]
    return spot, Rect(int(x), int(y), width, height)


def _overlap(places: NDArray[np.float32], size: tuple[int, int], others: list[Rect]) -> NDArray[np.float32]:
    """Return, for a tab at each of the places, how many square pixels of it lie over the others together."""
    if not others:
        return np.zeros(len(places), np.float32)
    rects = np.array(others, np.float32)  # (N, 4)
    near = np.maximum(places[:, None, :], rects[None, :, :2])
    far = np.minimum(places[:, None, :] + np.array(size, np.float32), rects[None, :, :2] + rects[None, :, 2:])
    sides = np.maximum(far - near, 0)
    summed: NDArray[np.float32] = (sides[..., 0] * sides[..., 1]).sum(axis=1)
    return summed
