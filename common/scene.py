"""The whole window as one picture: the camera's picture, its faces, the status line, the panel, the help."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from common import words
from common.drawing import GROUND, INK, QUIET, Rect, bgr, draw_faces
from common.entry import NameEntry
from common.expressions import EXPRESSIONS
from common.lettering import Colour, fitted, line_height, paste, patch, width
from common.messages import Face
from common.window import KEYS, Layout, Window, layout

PANEL: Colour = (38, 36, 34)
TRACK: Colour = (62, 59, 56)  # the empty part of a bar
WARNING: Colour = (120, 200, 255)  # light amber: a picture that is not live
PROMPT = "name of this face:"
CURSOR = "▏"
_DIMMED = 0.3
_EMPTY = (16, 9)  # shape of the room for a picture, while there is none


def compose(window: Window, picture: NDArray[np.uint8] | None, size: tuple[int, int], now: float) -> NDArray[np.uint8]:
    """Return the window's contents, (height, width, 3) uint8 BGR, and tell the window where its faces are.

    Args:
        picture: pixels of the window's result; None while there is none.
        size: (width, height) of the window.
    """
    wide, high = max(1, size[0]), max(1, size[1])
    shape = _EMPTY if picture is None else (picture.shape[1], picture.shape[0])
    places = layout(wide, high, *shape)
    canvas = np.empty((high, wide, 3), np.uint8)
    area, unit = places.picture, places.unit
    for strip in _around(area, wide, high):
        _fill(canvas, strip, GROUND)
    trouble = window.trouble(now)
    view = canvas[area.y : area.y + area.height, area.x : area.x + area.width]
    if picture is None:
        _fill(canvas, area, GROUND)
    else:
        _fit(picture, view)
    window.panel_was, window.panel = window.panel, None
    if trouble is not None:
        # What is not live must not look it: no boxes, no colours, and the reason written over it.
        if picture is not None:
            _dim(view)
        window.drawn = {}
        _headline(canvas, area, unit, trouble.headline, trouble.reason)
    elif window.result is not None:
        selected = window.selected
        window.drawn = draw_faces(canvas, window.result, area, unit, selected=selected, before=window.drawn)
        found = window.face()
        if found is not None:
            window.panel = _panel(canvas, places, window, *found, now)
    if window.entry is not None:
        _prompt(canvas, places, window.entry)
        return canvas
    _status(canvas, places, window, warn=trouble is not None or window.stalled, now=now)
    if window.help:
        _help(canvas, places)
    return canvas


def _fit(picture: NDArray[np.uint8], view: NDArray[np.uint8]) -> None:
    """Scale the picture into the view."""
    height, width = view.shape[:2]
    times = min(picture.shape[1] // width, picture.shape[0] // height)
    if times >= 2:
        # Pixels must be averaged where many become one; by a whole number that is several times as fast.
        few = (picture.shape[1] // times, picture.shape[0] // times)
        whole = picture[: few[1] * times, : few[0] * times]
        picture = cv2.resize(whole, few, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    cv2.resize(picture, (width, height), view, 0, 0, cv2.INTER_LINEAR)


def _dim(view: NDArray[np.uint8]) -> None:
    grey = cv2.cvtColor(view, cv2.COLOR_BGR2GRAY)
    cv2.cvtColor(cv2.convertScaleAbs(grey, None, _DIMMED, 14), cv2.COLOR_GRAY2BGR, view)


def _headline(canvas: NDArray[np.uint8], area: Rect, unit: int, headline: str, reason: str | None) -> None:
    limit = area.width - 4 * unit
    large = round(unit * 1.6)
    lines = [patch(fitted(headline, large, limit, 600), large, INK, GROUND, 600)]
    if reason:
        lines.append(patch(fitted(words.one_line(reason), unit, limit), unit, QUIET, GROUND))
    pad, gap = unit, unit // 3
    high = sum(line.shape[0] for line in lines) + 2 * pad + gap * (len(lines) - 1)
    wide = max(line.shape[1] for line in lines) + 3 * pad
    x, y = area.x + (area.width - wide) // 2, area.y + (area.height - high) // 2
    _fill(canvas, Rect(x, y, wide, high), GROUND)
    y += pad
    for line in lines:
        paste(canvas, line, area.x + (area.width - line.shape[1]) // 2, y)
        y += line.shape[0] + gap


def _status(canvas: NDArray[np.uint8], places: Layout, window: Window, *, warn: bool, now: float) -> None:
    bar, unit = places.status, places.unit
    y = bar.y + (bar.height - line_height(unit)) // 2
    camera, *parts = window.status(now)
    right = bar.width - unit
    notice = window.says(now)
    said = fitted(notice, unit, bar.width // 2) if notice else "h  help"
    pixels = patch(said, unit, INK if notice else QUIET, GROUND)
    if notice or bar.width > 30 * unit:
        paste(canvas, pixels, right - pixels.shape[1], y)
        right -= pixels.shape[1] + unit
    x = unit
    name = patch(fitted(camera, unit, max(0, right - x), 600), unit, INK, GROUND, 600)
    paste(canvas, name, x, y)
    x += name.shape[1] + unit
    text = fitted("   ".join(parts), unit, max(0, right - x))
    paste(canvas, patch(text, unit, WARNING if warn else QUIET, GROUND), x, y)


def _prompt(canvas: NDArray[np.uint8], places: Layout, entry: NameEntry) -> None:
    """The status line, while a name is typed in it."""
    bar, unit = places.status, places.unit
    _fill(canvas, bar, PANEL)
    y = bar.y + (bar.height - line_height(unit)) // 2
    label = patch(PROMPT, unit, QUIET, PANEL)
    told = entry.problem or "Enter  enrol   Esc  leave it"
    said = patch(fitted(told, unit, bar.width // 2), unit, WARNING if entry.problem else QUIET, PANEL)
    paste(canvas, label, unit, y)
    x, right = unit + label.shape[1] + unit // 2, bar.width - unit - said.shape[1]
    paste(canvas, said, right, y)
    text = entry.text
    while text and width(text + CURSOR, unit, 600) > right - unit - x:
        text = text[1:]  # the end is what is being typed
    paste(canvas, patch(text + CURSOR, unit, INK, PANEL, 600), x, y)


def _panel(
    canvas: NDArray[np.uint8], places: Layout, window: Window, face: Face, here: bool, now: float
) -> Rect | None:
    unit, room = places.unit, places.status.y
    pad, row = unit, round(unit * 1.6)
    expression = face.expression
    shares = expression.smoothed or expression.probabilities
    bars = here and expression.status == "ok" and shares is not None
    wide, high = 17 * unit, 2 * pad + 2 * row + unit // 2 + (len(EXPRESSIONS) if bars else 1) * row
    if wide > places.width * 0.7 or high > room:
        return None  # a very small window: the tab says the main thing
    where = _beside(places, window, face, wide, high)
    _fill(canvas, where, PANEL)
    x, y, inner = where.x + pad, where.y + pad, wide - 2 * pad
    name = words.who(face.identity)
    title = name if name != words.WAITING else f"track {face.track}"
    paste(canvas, patch(fitted(title, unit, inner, 600), unit, INK, PANEL, 600), x, y)
    y += row
    about = f"track {face.track} · {window.seen(now)}"
    paste(canvas, patch(fitted(about, unit, inner), unit, QUIET, PANEL), x, y)
    y += row + unit // 2
    if not bars:
        text = "out of sight" if not here else "…"
        if here and expression.status == "cannot_assess":
            text = f"cannot assess: {words.why(expression.reason)}" if expression.reason else "cannot assess"
        paste(canvas, patch(fitted(text, unit, inner), unit, INK, PANEL), x, y)
        return where
    names = max(width(word, unit, 600) for word in EXPRESSIONS) + unit // 2
    numbers = width("100 %", unit, 600) + unit // 2
    for word in EXPRESSIONS:
        share: float = getattr(shares, word)
        told = word == expression.label
        ink, weight = (INK, 600) if told else (QUIET, 400)
        paste(canvas, patch(word, unit, ink, PANEL, weight), x, y)
        bar = Rect(x + names, y + round(unit * 0.35), inner - names - numbers, max(4, round(unit * 0.6)))
        _fill(canvas, bar, TRACK)
        _fill(canvas, Rect(bar.x, bar.y, round(bar.width * share), bar.height), bgr(word))
        number = patch(f"{share * 100:.0f} %", unit, ink, PANEL, weight)
        paste(canvas, number, x + inner - number.shape[1], y)
        y += row
    return where


def _beside(places: Layout, window: Window, face: Face, wide: int, high: int) -> Rect:
    """Return that corner for the panel where it covers least of the faces and tabs, above all of its own face."""
    gap = places.unit
    right, below = places.width - wide - gap, places.status.y - high - gap
    corners = [Rect(x, y, wide, high) for y in (gap, max(gap, below)) for x in (right, gap)]
    costs = []
    for rank, corner in enumerate(corners):
        cost = 0.02 * rank * wide * high
        for track, drawn in window.drawn.items():
            weight = 10 if track == face.track else 1
            cost += weight * (_shared(corner, drawn.box, gap) + _shared(corner, drawn.tab, gap))
        if window.panel_was is not None and _shared(corner, window.panel_was, 0) > 0:
            cost -= 0.2 * wide * high  # a panel that jumps about is hard to read
        costs.append(cost)
    return corners[costs.index(min(costs))]


def _shared(panel: Rect, other: Rect, gap: int) -> int:
    """Return how many square pixels a panel, with a gap around it, and another rectangle have in common."""
    wide = min(panel.x + panel.width + gap, other.x + other.width) - max(panel.x - gap, other.x)
    high = min(panel.y + panel.height + gap, other.y + other.height) - max(panel.y - gap, other.y)
    return max(0, wide) * max(0, high)


def _help(canvas: NDArray[np.uint8], places: Layout) -> None:
    unit = places.unit
    row, pad = round(unit * 1.6), round(unit * 1.4)
    keys = max(width(key, unit, 600) for key, _ in KEYS) + 2 * unit
    wide = 2 * pad + keys + max(width(text, unit) for _, text in KEYS)
    high = 2 * pad + row * len(KEYS)
    x, y = (places.width - wide) // 2, max(0, (places.status.y - high) // 2)
    _fill(canvas, Rect(x, y, wide, high), PANEL)
    y += pad + (row - line_height(unit)) // 2
    for key, text in KEYS:
        paste(canvas, patch(key, unit, INK, PANEL, 600), x + pad, y)
        paste(canvas, patch(text, unit, QUIET, PANEL), x + pad + keys, y)
        y += row


def _around(area: Rect, wide: int, high: int) -> tuple[Rect, ...]:
    right, below = area.x + area.width, area.y + area.height
    return (
        Rect(0, 0, wide, area.y),
        Rect(0, below, wide, high - below),
        Rect(0, area.y, area.x, area.height),
        Rect(right, area.y, wide - right, area.height),
    )


def _fill(canvas: NDArray[np.uint8], rect: Rect, colour: Colour) -> None:
    # OpenCV's rectangle: assigning a colour to an array is several times slower, and this is most of a window.
    if rect.width > 0 and rect.height > 0:
        cv2.rectangle(canvas, (rect.x, rect.y, rect.width, rect.height), colour, cv2.FILLED)
