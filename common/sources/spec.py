"""What a person writes after ``--source``, understood and checked. No OpenCV here."""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from common.sources.base import SourceError

Kind = Literal["demo", "crowd", "webcam", "screen", "video", "image", "folder", "stream"]
Region = tuple[int, int, int, int]  # x, y, width, height in pixels of the monitor

DEFAULT_REGION: Region = (0, 40, 1000, 600)
_IMAGES = "avif bmp dib jp2 jpe jpeg jpg pbm pgm png pnm ppm sr ras tif tiff webp"
IMAGE_ENDINGS = frozenset(f".{ending}" for ending in re.findall(r"\w+", _IMAGES))
HEIC = frozenset((".heic", ".heif"))
NO_IMAGES = HEIC | {".gif"}  # pictures that OpenCV does not read, or not everywhere; alone, a .gif is a video
STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
CHOICES = "demo, demo:crowd, webcam[:N], screen[:X,Y,W,H][@MONITOR], a file, a folder, or an rtsp:// or http(s):// URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A source, understood.

    Attributes:
        place: path or URL (with its credentials: not for people, and not in ``repr``).
        index: number of the webcam (from 0) or of the monitor (from 1).
    """

    kind: Kind
    description: str  # for people; without credentials
    place: str = field(default="", repr=False)
    index: int = 0
    region: Region = DEFAULT_REGION


def parse_source(text: str) -> SourceSpec:
    """Understand what a person wrote. Raises SourceError saying what would be right; opens nothing."""
    text = text.strip()
    if not text:
        raise SourceError(f"the source is empty: use {CHOICES}")
    word, _, rest = text.partition(":")
    if text == "demo":
        return SourceSpec(kind="demo", description="demo")
    if word == "demo":
        if rest != "crowd":
            raise SourceError(f"there is no demo called {rest!r}: use demo or demo:crowd")
        return SourceSpec(kind="crowd", description="demo:crowd")
    if word == "webcam":
        if not re.fullmatch(r"\d{1,3}", rest) and text != "webcam":
            raise SourceError(f"{text!r}: the webcam's number must be 0, 1, 2, …, for example webcam:0")
        return SourceSpec(kind="webcam", description=f"webcam {int(rest or 0)}", index=int(rest or 0))
    if re.match(r"screen($|[:@])", text):
        return _screen(text)
    if "://" in text:
        return _stream(text)
    return _path(text)


def _screen(text: str) -> SourceSpec:
    match = re.fullmatch(r"screen(?::(\d+),(\d+),(\d+),(\d+))?(?:@(\d+))?", text.replace(" ", ""))
    if not match:
        raise SourceError(
            f"{text!r}: a screen region is X,Y,WIDTH,HEIGHT in pixels and a monitor a number from 1, "
            "for example screen:0,40,1000,600 or screen:0,40,1000,600@2"
        )
    *numbers, monitor = match.groups()
    x, y, width, height = DEFAULT_REGION if numbers[0] is None else (int(number) for number in numbers)
    if not width or not height:
        raise SourceError(f"{text!r}: the region's width and height must be at least 1 pixel")
    index = int(monitor or 1)
    if not index:
        raise SourceError(f"{text!r}: monitors are counted from 1")
    where = f"screen {width}×{height} at {x},{y}" + (f" of monitor {index}" if monitor else "")
    return SourceSpec(kind="screen", description=where, index=index, region=(x, y, width, height))


def _stream(url: str) -> SourceSpec:
    scheme = url.partition("://")[0].lower()
    if scheme not in STREAM_SCHEMES:
        raise SourceError(f"{scheme}:// is not a stream that can be read: use {', '.join(STREAM_SCHEMES)}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or re.search(r"\s", url):
        raise SourceError(
            f"{scheme}:// URL without a proper host: it looks like {scheme}://user:password@camera:554/path"
        )
    shown = f"[{host}]" if ":" in host else host
    # User, password and query may be secrets; host and path tell the cameras apart.
    description = f"{scheme}://{shown}{f':{port}' if port else ''}{parts.path}{'?…' if parts.query else ''}"
    return SourceSpec(kind="stream", description=description, place=url)


def without_password(text: str) -> str:
    """Return what a person wrote, to show it to others: whether or not it is understood, or there any more."""
    scheme, mark, rest = text.partition("://")
    return text if not mark else f"{scheme}://{rest.rpartition('@')[2]}"


def _path(text: str) -> SourceSpec:
    try:
        text.encode()
        path = Path(text).expanduser()
    except UnicodeEncodeError:
        raise SourceError(f"{os.fsencode(text)!r}: a name that is not UTF-8 cannot be used; rename the file") from None
    except RuntimeError:  # ~somebody who has no account here
        raise SourceError(_no_such(text)) from None
    device = re.fullmatch(r"/dev/video(\d+)", text)
    if device:
        return SourceSpec(kind="webcam", description=f"webcam {int(device[1])}", index=int(device[1]))
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except (OSError, ValueError):
        raise SourceError(_no_such(text)) from None
    if stat.S_ISDIR(mode):
        return SourceSpec(kind="folder", description=str(path), place=str(path))
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path} is neither a file nor a folder")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read: permission denied")
    suffix = path.suffix.lower()
    kind: Kind = "image" if suffix in IMAGE_ENDINGS or suffix in HEIC else "video"
    return SourceSpec(kind=kind, description=str(path), place=str(path))


def _no_such(text: str) -> str:
    word = re.split(r"[:@]", text)[0].lower()
    looks_like_path = any(sign in text for sign in ("/", "\\", "."))
    close = difflib.get_close_matches(word, ["demo", "webcam", "screen", "camera", "crowd"], n=1, cutoff=0.6)
    if close and not looks_like_path:
        meant = {"camera": "webcam", "crowd": "demo:crowd"}.get(close[0], close[0])
        return f"unknown source {text!r}: did you mean {meant}? There are {CHOICES}"
    if looks_like_path:
        return (
            f"there is no file or folder {text!r}: give a path that exists, or {CHOICES.split(', a file')[0]}, or a URL"
        )
    return f"unknown source {text!r}: use {CHOICES}"


def webcam_present() -> bool | None:
    """Whether this machine has a webcam; None where only opening one would tell (macOS, Windows)."""
    if not sys.platform.startswith("linux"):
        return None
    return any(Path("/dev").glob("video[0-9]*"))
