"""Raw frames from one process to another: Mien's transport, header packed, unpacked and checked, and bare pyzmq.

    python bench/transport.py [--seconds 1] [--rounds 9]

Both ways run in turn in one run, over ipc (loopback TCP where there is none), with the same queue lengths; the target
is at least 0.8 of what bare pyzmq does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, in_turn, median
from common import clock
from common.analyse import private_endpoints
from common.channels import CHANNELS
from common.child import environment
from common.messages import Frame, kind_of, pack, unpack
from common.transport import opened, terminate

SIZES = {"640x360": (640, 360), "1920x1080": (1920, 1080)}
WAYS = ("mien", "bare")
END = b"end"
_TARGET = 0.8


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of sending, each round")
    parser.add_argument("--rounds", type=int, default=9, help="of each way and size")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.receive:
        receive(*given.receive.split(","))
        return 0
    report = Report("transport", "raw frames from one process to another, frames/s (median of the rounds)")
    report.settings = {"seconds": given.seconds, "rounds": given.rounds}
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        for name, (width, height) in SIZES.items():
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            for way in in_turn(WAYS, given.rounds):
                rates[way].append(measure(way, width, height, given.seconds, Path(folder)))
            mien, bare = median(rates["mien"]), median(rates["bare"])
            report.add(
                "frames", size=name, mien=mien, bare_pyzmq=bare, ratio=mien / bare, target=_TARGET,
                # The least disturbed round of each: what to look at where other programs use the machine.
                best_mien=max(rates["mien"]), best_bare=max(rates["bare"]),
                best_ratio=max(rates["mien"]) / max(rates["bare"]),
            )  # fmt: skip
    report.show()
    print(f"kept in {report.save()}")
    return 0


def measure(way: str, width: int, height: int, seconds: float, folder: Path) -> float:
    """Send frames as fast as they go for some seconds; return how many a second arrived and passed the check."""
    endpoint = private_endpoints(folder)["frames"]
    command = [sys.executable, __file__, "--receive", f"{way},{endpoint},{width},{height}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(None)) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it listens
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        (_send_mien if way == "mien" else _send_bare)(endpoint, pixels, seconds)
        try:
            return float(receiver.communicate(timeout=60)[0])
        finally:
            receiver.kill()


def receive(way: str, endpoint: str, width: str, height: str) -> None:
    """The other process: take frames until the end, print how many came a second."""
    size = int(width) * int(height) * 3
    take = _receiver_mien(endpoint, size) if way == "mien" else _receiver_bare(endpoint, size)
    print("listening", flush=True)
    take()  # the first is for the connection
    began, count = time.perf_counter(), 0
    while take():
        count += 1
    print(count / (time.perf_counter() - began), flush=True)


def _send_mien(endpoint: str, pixels: NDArray[np.uint8], seconds: float) -> None:
    ends, seq = time.perf_counter() + seconds, 0
    height, width = pixels.shape[:2]
    with opened("frames", endpoint, "push", linger_ms=5000) as socket:
        while time.perf_counter() < ends:
            now_ns = time.monotonic_ns()
            frame = Frame(
                sender="capture.bench.1", camera="cam0", run=1, seq=seq, captured_at=time.time(), width=width,
                height=height, age_ms=0.1, clock=clock.reading(now_ns), media_time_s=seq / 30,
            )  # fmt: skip
            seq += socket.send([frame.kind.encode(), pack(frame), pixels], timeout_ms=100)
        while not socket.send([END, b""], timeout_ms=100):
            pass


def _receiver_mien(endpoint: str, size: int) -> Callable[[], bool]:
    socket = opened("frames", endpoint, "pull", bind=True)

    def take() -> bool:
        while (parts := socket.receive(timeout_ms=100)) is None:
            pass
        if bytes(parts[0][:16]) == END:
            socket.close()
            terminate()
            return False
        assert kind_of(bytes(parts[0][:256])) is Frame
        frame = unpack(Frame, parts[1])
        assert frame.width * frame.height * 3 == parts[2].nbytes == size
        return True

    return take


def _send_bare(endpoint: str, pixels: NDArray[np.uint8], seconds: float) -> None:
    ends = time.perf_counter() + seconds
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    with socket:
        socket.linger = 5000
        socket.sndhwm = CHANNELS["frames"].send_queue
        raw: Any = pixels
        socket.connect(endpoint)
        while time.perf_counter() < ends:
            socket.send(raw, copy=False)
        socket.send(END)


def _receiver_bare(endpoint: str, size: int) -> Callable[[], bool]:
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = CHANNELS["frames"].receive_queue
    socket.bind(endpoint)

    def take() -> bool:
        frame = socket.recv(copy=False)
        if len(frame) == size:
            return True
        socket.close()
        context.term()
        return False

    return take


if __name__ == "__main__":
    sys.exit(main())
