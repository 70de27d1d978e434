"""Whether a window can be opened here, found out without opening one.

OpenCV's window library ends the whole process when it cannot reach the display, so the question comes first.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_TIMEOUT_S = 2.0
_BEGINS_ANEW_S = 1.0


def screen_problem(environment: Mapping[str, str] | None = None) -> str | None:
    """Return why no window can be opened here, or None if one can.

    Args:
        environment: variables to look at instead of the process's own (Linux: ``DISPLAY``, ``WAYLAND_DISPLAY``).
    """
    if sys.platform in ("win32", "darwin"):
        return None
    values = os.environ if environment is None else environment
    display = values.get("DISPLAY", "")
    if not display:
        if values.get("WAYLAND_DISPLAY"):
            return "this Wayland session has no Xwayland, which OpenCV's windows need (Debian: xwayland)"
        return "there is no screen here (DISPLAY is not set)"
    ends = time.monotonic() + _BEGINS_ANEW_S
    while not (opened := _opens(display)):
        problem = _cannot_reach(display)
        if opened is None and problem is None:
            return None
        # A server of which we are the only client begins anew whenever a connection ends, and refuses all meanwhile.
        if problem is not None or time.monotonic() > ends:
            return f"the display {display} cannot be used: {problem or 'it refuses this user (xauth)'}"
        time.sleep(0.05)
    return None


def _cannot_reach(display: str) -> str | None:
    """Return why no connection to an X display can be made, or None."""
    host, colon, rest = display.rpartition(":")
    number = rest.split(".")[0]
    if not colon or not number.isdigit():
        return "that is not the name of a display, such as :0"
    try:
        if host in ("", "unix"):
            _connect_locally(number)
        else:
            socket.create_connection((host.strip("[]"), 6000 + int(number)), _TIMEOUT_S).close()
    except OSError as error:
        return f"nothing answers there ({error.strerror or error})"
    return None


def _connect_locally(number: str) -> None:
    path = f"/tmp/.X11-unix/X{number}"
    names = ([f"\0{path}"] if sys.platform == "linux" else []) + [path]
    for last, name in enumerate(names, 1):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect(name)
                return
            except OSError:
                if last == len(names):
                    raise


def _opens(display: str) -> bool | None:
    """Whether Xlib, which asks for permission too, opens the display; None where there is no Xlib to ask."""
    try:
        xlib = ctypes.CDLL("libX11.so.6")
    except OSError:
        return None
    xlib.XOpenDisplay.restype = ctypes.c_void_p
    xlib.XOpenDisplay.argtypes = [ctypes.c_char_p]
    xlib.XCloseDisplay.argtypes = [ctypes.c_void_p]
    handle = xlib.XOpenDisplay(display.encode())
    if not handle:
        return False
    xlib.XCloseDisplay(handle)
    return True


def font_dir() -> Path | None:
    """Return a folder of fonts for OpenCV's window library, which otherwise warns that its own is missing."""
    folders = (Path("/usr/share/fonts/truetype/dejavu"), Path("/usr/share/fonts/truetype"), Path("/usr/share/fonts"))
    return next((folder for folder in folders if folder.is_dir()), None)
