"""A camera made of pictures in memory, for benchmarks of the running pipeline: frames as fast as they are taken.

The bench takes the place of the capture stage: it writes pictures where a camera would (shared memory) and tells the
conductor as a camera would. At most a few frames are under way at once: the next one goes out when a result has come
back, so that nothing is dropped and nothing queues for longer than it must. Media time goes on by a thirtieth of a
second a frame whatever the speed, so that what is done for each frame (a closer look every 0.15 s, identity every so
many seconds) is what is done at 30 frames/s.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import percentile
from common import clock, media
from common.analyse import private_endpoints
from common.config import load
from common.messages import Frame, Result, pack
from common.news import NewsReader
from common.ring import RingWriter
from common.settings import Config
from common.transport import opened

Picture = NDArray[np.uint8]
RATE = 30.0
LOST_AFTER_S = 3.0
GIVEN_UP_AFTER_S = 30.0


@dataclass(slots=True)
class Fed:
    """What came back of what was given.

    Attributes:
        seconds: from the first result that counts to the last.
        round_trips_ms: from the moment a picture was there to its result at a subscriber.
        results: number of the picture, and what was said about it.
        dropped: frames given that had no result, or one without analysis.
    """

    seconds: float = 0.0
    round_trips_ms: list[float] = field(default_factory=list)
    results: list[tuple[int, Result]] = field(default_factory=list)
    dropped: int = 0

    @property
    def rate(self) -> float:
        """Analysed frames a second."""
        return len(self.results) / self.seconds if self.seconds else 0.0

    def latency(self, share: float) -> float:
        """Return the round trip that this share of the frames does not exceed, ms."""
        return percentile(self.round_trips_ms, share)


class Feeding:
    """One camera of a running pipeline; ends with the block. One a camera and process: its memory has one name.

    Args:
        pictures: shown in turn, over and over; all of one size.
        in_flight: most frames under way.
    """

    def __init__(self, config: Config, camera: str, pictures: Sequence[Picture], *, in_flight: int = 3) -> None:
        self._camera, self.in_flight = camera, in_flight
        self._frames = opened("frames", config.endpoint("frames"), "push")
        self._ring = RingWriter(config, camera)
        self._reader = NewsReader(config, (f"results.{camera}",))
        self._run = self._scene = 0
        self._given: dict[int, float] = {}  # frames under way: when they were given, monotonic
        self.show(pictures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.close()
        self._ring.close()
        self._reader.close()

    def show(self, pictures: Sequence[Picture]) -> None:
        """Show other pictures from now on, as a camera does whose source was changed."""
        self._pictures = pictures
        self._run = max(int(time.time() * 1000), self._run + 1)
        self._scene += 1
        self._seq = 0
        self._given.clear()

    def feed(self, seconds: float, *, rate: float | None = None, fewest: int = 1) -> Fed:
        """Give frames for so long, as fast as they are taken or ``rate`` a second, and return what came of them.

        Raises SystemExit when nothing comes back for half a minute.
        """
        fed = Fed()
        began = last = time.monotonic()
        ends, due = began + seconds, began
        while True:
            now = time.monotonic()
            wanted = now < ends or len(fed.results) < fewest
            if wanted and len(self._given) < self.in_flight and (rate is None or now >= due):
                self._give()
                due += 1 / rate if rate else 0.0
                continue
            if not wanted and not self._given:
                break
            wait_ms = 20.0 if rate is None or not wanted else min(20.0, max(0.0, (due - now) * 1e3))
            if self._take(fed, max(1, int(wait_ms))):
                last = time.monotonic()
                continue
            for seq in [seq for seq, at in self._given.items() if time.monotonic() - at > LOST_AFTER_S]:
                del self._given[seq]
                fed.dropped += 1
            if time.monotonic() - last > GIVEN_UP_AFTER_S:
                raise SystemExit(f"no result within {GIVEN_UP_AFTER_S:.0f} s: the pipeline does not work")
        fed.seconds = time.monotonic() - began
        return fed

    def _give(self) -> None:
        picture = self._pictures[self._seq % len(self._pictures)]
        at_ns, captured_at = time.monotonic_ns(), time.time()
        slot = self._ring.put(picture)
        frame = Frame(
            sender=f"capture.bench.{os.getpid()}", camera=self._camera, run=self._run, seq=self._seq,
            captured_at=captured_at, width=picture.shape[1], height=picture.shape[0], scene=self._scene, slot=slot,
            age_ms=(time.monotonic_ns() - at_ns) / 1e6, clock=clock.reading(at_ns), media_time_s=self._seq / RATE,
        )  # fmt: skip
        parts: list[Any] = [frame.kind.encode(), pack(frame), *([] if slot else [picture])]
        while not self._frames.send(parts, timeout_ms=1000):
            pass
        self._given[self._seq] = at_ns / 1e9
        self._seq += 1

    def _take(self, fed: Fed, timeout_ms: int) -> int:
        news = self._reader.read(timeout_ms=timeout_ms)
        now = time.monotonic()
        for _, result in news:
            if not isinstance(result, Result) or result.run != self._run:
                continue
            given = self._given.pop(result.seq, None)
            if given is not None and result.analysed:
                fed.round_trips_ms.append((now - given) * 1e3)
                fed.results.append((result.seq % len(self._pictures), result))
            elif given is not None:
                fed.dropped += 1
            # Results come in order: whatever is older and not there was dropped.
            for seq in [seq for seq in self._given if seq < result.seq]:
                del self._given[seq]
                fed.dropped += 1
        return len(news)


def configured(folder: Path, cameras: Sequence[str] = ("cam0",), *, source: str = "demo", **settings: Any) -> Config:
    """Return the default configuration in a private directory, with an empty store and free ports, for cameras that
    the bench itself plays, or that all show one ``source``; ``settings`` are sections to change."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("samples", "compiled", "crowd"):
        place = media.data_dir() / name
        place.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(place)
    endpoints = private_endpoints(folder / "run") | {"archive": None}
    return load(
        overrides={
            "cameras": {name: {"source": source} for name in cameras}, "run_dir": str(folder / "run"),
            "storage": {"data_dir": str(folder)}, "endpoints": endpoints, "dashboard": {"port": _free_port()},
            # A bench may stop the pipeline for a while; that is not death.
            "supervision": {"heartbeat_timeout_s": 600},
            **settings,
        },
        environment={},
    )  # fmt: skip


def _free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def pictures_of(path: Path, count: int, *, size: tuple[int, int] | None = None, first: int = 0) -> list[Picture]:
    """Return consecutive pictures of a video, decoded, (H, W, 3) uint8 BGR."""
    film = cv2.VideoCapture(str(path))
    pictures: list[Picture] = []
    film.set(cv2.CAP_PROP_POS_FRAMES, first)
    while len(pictures) < count:
        good, picture = film.read()
        if not good:
            break
        if size is not None and picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(picture, np.uint8))
    film.release()
    if not pictures:
        raise SystemExit(f"{path} has no picture that can be decoded")
    return pictures
