"""Text as pixels: anti-aliased, at any size, in any script, rendered once and kept.

OpenCV's own outline fonts cover Latin, Greek, Cyrillic, Chinese, Japanese and Korean, from the wheel, alike on every
system. What they lack, and scripts whose letters join or run from right to left, are set by Pillow with a font of the
system. A letter that no font has becomes a small square.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import unicodedata
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]  # blue, green, red

_MISSING = "□"
_SEARCH_S = 0.3  # for a font that has a letter: a window must not stand still for it
_WIDE = (
    "notosans-regular", "dejavusans.", "segoeui.", "nirmala", "leelawui", "ebrima", "arial unicode", "arialuni",
    "tahoma.", "arial.", "freesans.", "droidsansfallback", "unifont",
)  # fmt: skip

log = logging.getLogger(__name__)


def line_height(size: int) -> int:
    """Return the height in pixels of a line of text of this size."""
    return _baseline(size) + math.ceil(size * 0.3)


def _baseline(size: int) -> int:
    return math.ceil(size * 1.1)  # room above for a capital's accent


@lru_cache(maxsize=512)
def mask(text: str, size: int, weight: int = 400) -> NDArray[np.uint8]:  # (line_height, width) coverage, read-only
    """Return how far each pixel is covered by the text, 0 to 255.

    Args:
        text: one line; anything unprintable becomes a space.
        size: pixels, about the height of an ``Åg``.
        weight: 400 regular, 600 semibold.
    """
    text = unicodedata.normalize("NFC", "".join(c if c.isprintable() else " " for c in text))
    runs = []
    for complex_, characters in groupby(_runs(text), key=lambda pair: pair[1]):
        run = "".join(character for character, _ in characters)
        drawn = _by_pillow(run, size) if complex_ else None
        if drawn is None:
            run = "".join(c if not complex_ or _has(c) else _MISSING for c in run)
            drawn = _by_opencv(run, size, weight)
        runs.append(drawn)
    whole = np.hstack(runs) if runs else np.zeros((line_height(size), 0), np.uint8)
    whole.setflags(write=False)
    return whole


@lru_cache(maxsize=512)
def patch(text: str, size: int, colour: Colour, ground: Colour, weight: int = 400) -> NDArray[np.uint8]:
    """Return the text on an opaque ground, (line_height, width, 3) uint8 BGR, read-only. Arguments as ``mask``."""
    cover = mask(text, size, weight)[:, :, None].astype(np.float32) / 255
    mixed = cover * np.array(colour, np.float32) + (1 - cover) * np.array(ground, np.float32)
    pixels: NDArray[np.uint8] = (mixed + 0.5).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def width(text: str, size: int, weight: int = 400) -> int:
    """Return how many pixels wide the text is."""
    return int(mask(text, size, weight).shape[1])


@lru_cache(maxsize=512)
def fitted(text: str, size: int, limit: int, weight: int = 400) -> str:
    """Return the text, shortened with ``…`` where it would be wider than ``limit`` pixels."""
    if width(text, size, weight) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + "…", size, weight) <= limit:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…" if low else ""


def paste(canvas: NDArray[np.uint8], pixels: NDArray[np.uint8], x: int, y: int) -> None:
    """Copy a patch onto the canvas; what lies outside is cut off."""
    left, top = max(0, x), max(0, y)
    right, bottom = min(canvas.shape[1], x + pixels.shape[1]), min(canvas.shape[0], y + pixels.shape[0])
    if left < right and top < bottom:
        canvas[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]


@cache
def _face() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _by_opencv(text: str, size: int, weight: int) -> NDArray[np.uint8]:
    height = line_height(size)
    room = np.zeros((height, (len(text) + 2) * size * 2, 1), np.uint8)
    # On one-channel pictures too, the text's colour is given as three or four numbers.
    (end, _), _ = cv2.putText(room, text, (0, _baseline(size)), (255, 255, 255), _face(), size, weight)
    return np.ascontiguousarray(room[:, : max(1, end), 0])


def _runs(text: str) -> list[tuple[str, bool]]:
    """Return each character with whether it needs Pillow, for itself or for the accent that follows it."""
    needs = [_joins(c) or not _has(c) for c in text]
    for at in range(len(text) - 2, -1, -1):
        if needs[at + 1] and (text[at] == " " or _is_mark(text[at + 1])):
            needs[at] = True
    for at in range(1, len(text)):
        # A space stays with the words around it when both are set alike, so that a line from the right keeps its order.
        needs[at] = needs[at] and (text[at] != " " or needs[at - 1])
    return list(zip(text, needs, strict=True))


def _joins(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL", "AN") or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc")


@cache
def _has(character: str) -> bool:
    """Whether OpenCV's fonts have a character: those they lack are drawn as a question mark."""
    if character == "?" or character.isascii():
        return True
    return not np.array_equal(_by_opencv(character, 24, 400), _by_opencv("?", 24, 400))


def _by_pillow(text: str, size: int) -> NDArray[np.uint8] | None:
    letters = frozenset(text.replace(" ", ""))
    path = _font_with(letters)
    if path is None:
        return None
    font = _font(path, size)
    room = Image.new("L", (max(1, round(font.getlength(text))), line_height(size)))
    ImageDraw.Draw(room).text((0, _baseline(size)), text, fill=255, font=font, anchor="ls")
    return np.asarray(room)


@lru_cache(maxsize=64)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), round(size * 0.95))


@lru_cache(maxsize=256)
def _font_with(letters: frozenset[str]) -> Path | None:
    """Return a font file of this system that has all these letters; None, said once, when there is none."""
    scripts = {unicodedata.name(letter, "?").split()[0].lower() for letter in letters}

    def order(path: Path) -> tuple[bool, bool, str]:
        name = path.name.lower()
        return not any(script in name for script in scripts), not name.startswith(_WIDE), name

    deadline = time.monotonic() + _SEARCH_S
    for path in sorted(_system_fonts(), key=order):
        if _covers(path, letters):
            return path
        if time.monotonic() > deadline:
            break
    log.warning("no font of this system has %s: install one (Debian: fonts-noto-core)", "".join(sorted(letters)))
    return None


def _covers(path: Path, letters: frozenset[str]) -> bool:
    try:
        font = _font(path, 24)
        lacking = bytes(font.getmask("\U0010fffe"))
        return all(bytes(font.getmask(letter)) != lacking for letter in letters)
    except (OSError, ValueError):
        return False  # a damaged or unusual font file of the system: another one will do


@cache
def _system_fonts() -> tuple[Path, ...]:
    home = Path.home()
    if sys.platform == "win32":
        roots = [
            Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
            Path(os.environ.get("LOCALAPPDATA", home)) / "Microsoft" / "Windows" / "Fonts",
        ]
    elif sys.platform == "darwin":
        roots = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    else:
        roots = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local/share/fonts", home / ".fonts"]
    kinds = {".ttf", ".otf", ".ttc"}
    return tuple(path for root in roots if root.is_dir() for path in root.rglob("*") if path.suffix.lower() in kinds)
