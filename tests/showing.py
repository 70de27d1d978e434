"""Made-up results on real pictures, and a stand-in for the conductor that publishes them on a real socket."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
import time
from functools import cache
from typing import Any

import cv2
import mss
import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from common.media import sample
from common.messages import Expression, Face, Identity, Picture, Preview, Probabilities, Result, Stats, pack
from common.news import NewsReader
from common.settings import Config
from common.transport import opened
from tests.conftest import wait_until

# Where the five people of the sample photo have their faces, in its 1000 × 667 pixels.
BOXES = ((688, 291, 103, 130), (316, 237, 96, 121), (534, 303, 98, 132), (223, 66, 83, 106), (440, 211, 77, 98))


def face(
    track: int,
    box: tuple[float, ...],
    label: str | None = None,
    *,
    name: str | None = None,
    identity: str = "unknown",
    reason: str | None = None,
    confidence: float = 0.7,
) -> Face:
    """Return a face that looks like ``label``, or cannot be assessed for ``reason``, or (neither given) is pending."""
    x, y, width, height = (float(value) for value in box)
    shares = None
    if label is not None:
        rest = (1 - confidence) / (len(EXPRESSIONS) - 1)
        shares = Probabilities(**{word: confidence if word == label else rest for word in EXPRESSIONS})
    return Face(
        track=track,
        box=(x, y, width, height),
        score=0.9,
        landmarks=((x, y),) * 5,
        identity=Identity.model_validate({"status": "known" if name else identity, "name": name, "person": 1}),
        expression=Expression.model_validate(
            {
                "status": "ok" if label else "cannot_assess" if reason else "pending",
                "reason": reason,
                "label": label,
                "confidence": confidence if label else None,
                "probabilities": shares,
                "smoothed": shares,
            }
        ),
    )


def result(width: int, height: int, faces: tuple[Face, ...] = (), **fields: Any) -> Result:
    """Return a result of camera ``cam0``."""
    known: dict[str, Any] = {
        "sender": "conductor.test.1",
        "camera": "cam0",
        "run": 1,
        "seq": 7,
        "captured_at": 1_790_000_000.123,
        "analysed": True,
        "latency_ms": 41.7,
        "timings_ms": {},
        "media_time_s": 0.0,
    }
    return Result(width=width, height=height, faces=faces, **(known | fields))


def preview(shown: Result) -> Preview:
    return Preview(sender="preview.test.1", analysed=shown.analysed, result=shown)


@cache
def photo(width: int = 1000, height: int = 667) -> NDArray[np.uint8]:
    """Return the sample photo of five people, scaled."""
    pixels = cv2.imread(str(sample("five_people.jpg")))
    assert pixels is not None
    scaled: NDArray[np.uint8] = cv2.resize(pixels, (width, height))  # type: ignore[assignment]
    scaled.setflags(write=False)
    return scaled


def five(width: int = 1000, height: int = 667, **fields: Any) -> Result:
    """Return a result for ``photo(width, height)``: known and happy, sad, surprised, turned away, pending."""
    across, down = width / 1000, height / 667
    boxes = [(x * across, y * down, w * across, h * down) for x, y, w, h in BOXES]
    faces = (
        face(1, boxes[0], "happy", name="Renée Müller"),
        face(2, boxes[1], "sad"),
        face(3, boxes[2], "surprised", name="张伟"),
        face(4, boxes[3], reason="turned"),
        face(5, boxes[4], identity="pending"),
    )
    return result(width, height, faces, **fields)


class PictureSender:
    """Binds the channel ``pictures`` as the conductor does, and notes who is asked for."""

    def __init__(self, config: Config) -> None:
        self._socket = opened("pictures", config.endpoint("pictures"), "xpub", bind=True)
        self.asked: set[bytes] = set()

    def listen(self) -> set[bytes]:
        """Return the topics that are subscribed to now."""
        while (parts := self._socket.receive()) is not None:
            word = bytes(parts[0])
            (self.asked.add if word[:1] == b"\x01" else self.asked.discard)(word[1:])
        return self.asked

    def send(self, shown: Result, pixels: Any, encoding: str = "raw") -> None:
        """Publish a picture and its result."""
        picture = Picture.model_validate({"from": "conductor.test.1", "encoding": encoding, "result": shown})
        self.send_parts([shown.camera.encode(), pack(picture), pixels])

    def send_parts(self, parts: list[Any]) -> None:
        """Publish whatever this is."""
        self._socket.send(parts)

    def close(self) -> None:
        self._socket.close()


class Pictures:
    """A conductor's pictures, sent for the cameras in ``cameras`` as long as somebody asks for them."""

    def __init__(self, config: Config, size: tuple[int, int] = (640, 360)) -> None:
        self.size = size
        self._config = config
        self.cameras: set[str] = set()
        self.fields: dict[str, Any] = {}  # of the results, beside the faces
        self.asked: set[bytes] = set()
        self.fields_after: tuple[int, dict[str, Any]] | None = None  # the fields that come after so many pictures
        self._end = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        sender = PictureSender(self._config)
        seq = sent = 0
        self._ready.set()
        while not self._end.wait(0.03):
            seq += 1
            self.asked = set(sender.listen())
            for camera in self.cameras:
                if camera.encode() in self.asked:
                    known = {"camera": camera, "seq": seq, "captured_at": time.time()}
                    sent += 1
                    if self.fields_after is not None and sent > self.fields_after[0]:
                        self.fields = self.fields_after[1]
                    sender.send(five(*self.size, **known, **self.fields), photo(*self.size))
        sender.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join(10)


def await_stages(config: Config, *names: str) -> None:
    """Return when each of these stages turns: when it has told its figures on the bus."""
    reader = NewsReader(config, tuple(f"stats.{name}" for name in names))
    turning: set[str] = set()

    def all_turn() -> bool:
        turning.update(message.stage for _, message in reader.read(timeout_ms=100) if isinstance(message, Stats))
        return turning >= set(names)

    try:
        wait_until(all_turn, 60, f"{', '.join(names)} turn")
    finally:
        reader.close()


class Screen:
    """An X server of its own, without a screen: pictures of it can be taken, keys pressed, the mouse clicked."""

    def __init__(self, width: int = 1300, height: int = 800) -> None:
        for tool, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
            assert _has(tool), f"these tests need {tool}: apt-get install {package}"
        # The server chooses a free display by itself and says which.
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._server.stdout is not None
        self.display = ":" + self._server.stdout.readline().decode().strip()

    def do(self, *arguments: str) -> str:
        """Run xdotool."""
        done = subprocess.run(
            ["xdotool", *arguments], env={"DISPLAY": self.display, "PATH": _path()}, capture_output=True, text=True
        )
        return done.stdout.strip()

    def window(self) -> str:
        """Return the id of Mien's window, or nothing while there is none."""
        return self.do("search", "--name", "^Mien$").split("\n")[0]

    def close_window(self) -> None:
        """Ask the window to close, as the × of its frame does."""
        xlib = ctypes.CDLL("libX11.so.6")
        xlib.XOpenDisplay.restype = ctypes.c_void_p
        for function in ("XInternAtom", "XSendEvent", "XCloseDisplay"):
            getattr(xlib, function).restype = ctypes.c_ulong
        display = ctypes.c_void_p(xlib.XOpenDisplay(self.display.encode()))
        assert display.value
        event = _ClientMessage(
            type=33,
            window=int(self.window()),
            message_type=xlib.XInternAtom(display, b"WM_PROTOCOLS", 0),
            format=32,
            data=(ctypes.c_long * 5)(xlib.XInternAtom(display, b"WM_DELETE_WINDOW", 0), 0, 0, 0, 0),
        )
        xlib.XSendEvent(display, ctypes.c_ulong(event.window), 0, ctypes.c_long(0), ctypes.byref(event))
        xlib.XCloseDisplay(display)

    def picture(self) -> NDArray[np.uint8]:
        """Return what the screen shows, (height, width, 3) uint8 BGR."""
        with (mss.MSS if hasattr(mss, "MSS") else mss.mss)(display=self.display) as camera:
            return np.ascontiguousarray(np.asarray(camera.grab(camera.monitors[0]))[:, :, :3])

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(10)
        assert self._server.stdout is not None
        self._server.stdout.close()


class _ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, filled up to the size of an XEvent."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 16),
    )


def contains(scene: NDArray[np.uint8], part: NDArray[np.uint8]) -> bool:
    """Whether some place of the scene looks exactly like ``part``."""
    if part.shape[0] > scene.shape[0] or part.shape[1] > scene.shape[1]:
        return False
    distance = cv2.matchTemplate(scene, part, cv2.TM_SQDIFF)
    return float(distance.min()) <= 4.0 * part.size * 0.01


def _has(tool: str) -> bool:
    return shutil.which(tool) is not None


def _path() -> str:
    return os.environ["PATH"]
