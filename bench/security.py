"""What keys cost: JPEG frames of 640×360 from one process to another over TCP, with CURVE and without.

    python bench/security.py [--seconds 2] [--rounds 9]

*work*: each picture is encoded, sent, checked and decoded, as camera and detection worker do it; the target is at least
0.85 of what goes without keys. *wire*: the same bytes again and again, nothing but sockets; how much CURVE costs of
that is for information, no camera gives pictures so fast. The processor time of both processes for a frame is given
beside: it means something where other programs use the machine, too.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Report, in_turn, median
from common import clock, jpeg, media
from common.child import environment
from common.endpoints import Endpoint
from common.keys import KeyRing
from common.messages import Frame, kind_of, pack, unpack
from common.pixels import decode
from common.transport import key_pair, opened, terminate

WIDTH, HEIGHT, QUALITY = 640, 360, 90
WAYS = ("plain", "curve")
PARTS = ("work", "wire")
END = b"end"
_TARGET = 0.85


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of sending, each round")
    parser.add_argument("--rounds", type=int, default=9, help="of each way and part")
    parser.add_argument("--receive", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.receive:
        receive(*given.receive)
        return 0
    report = Report("security", f"JPEG frames of {WIDTH}×{HEIGHT} over TCP, frames/s (median of the rounds)")
    report.settings = {"seconds": given.seconds, "rounds": given.rounds, "jpeg_quality": QUALITY}
    picture = _picture()
    report.settings["jpeg_kb"] = round(len(jpeg.encode(picture, QUALITY)) / 1024, 1)
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        KeyRing(Path(folder), key_pair).make("server", ())
        for part in PARTS:
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            costs: dict[str, list[float]] = {way: [] for way in WAYS}
            for way in in_turn(WAYS, given.rounds):
                rate, cpu_ms = measure(part, way, Path(folder), picture, given.seconds)
                rates[way].append(rate)
                costs[way].append(cpu_ms)
            plain, curve = median(rates["plain"]), median(rates["curve"])
            plain_ms, curve_ms = median(costs["plain"]), median(costs["curve"])
            report.add(
                "frames", part=part, plain=plain, curve=curve, ratio=curve / plain,
                target=_TARGET if part == "work" else None,
                best_ratio=max(rates["curve"]) / max(rates["plain"]),
                plain_cpu_ms=plain_ms, curve_cpu_ms=curve_ms, cpu_ratio=plain_ms / curve_ms,
            )  # fmt: skip
    report.show()
    print(f"kept in {report.save()}")
    return 0


def measure(part: str, way: str, folder: Path, picture: NDArray[np.uint8], seconds: float) -> tuple[float, float]:
    """Send frames as fast as they go for some seconds; return how many a second arrived, and processor ms for each."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    command = [sys.executable, __file__, "--receive", part, way, str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(None)) as receiver:
        try:
            assert receiver.stdout is not None
            receiver.stdout.readline()  # it listens
            cpu_s, sent = _send(part, _endpoint(way, folder, port), picture, seconds)
            rate, receiver_ms = receiver.communicate(timeout=60)[0].split()
            return float(rate), cpu_s * 1e3 / max(1, sent) + float(receiver_ms)
        finally:
            receiver.kill()


def receive(part: str, way: str, folder: str, port: str) -> None:
    """The other process: take frames until the end, print how many came a second."""
    cv2.setNumThreads(1)
    count, began, cpu = -1, 0.0, 0.0  # the first is for the connection
    with opened("frames", _endpoint(way, Path(folder), int(port)), "pull", bind=True) as frames:
        print("listening", flush=True)
        while True:
            parts = frames.receive(timeout_ms=100)
            if parts is None:
                continue
            if bytes(parts[0][:16]) == END:
                break
            assert kind_of(bytes(parts[0][:256])) is Frame
            frame = unpack(Frame, parts[1])
            if part == "work":
                decode(parts[2], frame.encoding, frame.width, frame.height)
            count += 1
            if not count:
                began, cpu = time.perf_counter(), time.process_time()
    cpu_ms = (time.process_time() - cpu) * 1e3 / max(1, count)
    print(count / (time.perf_counter() - began), cpu_ms, flush=True)
    terminate()


def _send(part: str, endpoint: Endpoint, picture: NDArray[np.uint8], seconds: float) -> tuple[float, int]:
    """Return the processor seconds that sending took, and how many frames."""
    cv2.setNumThreads(1)
    data, seq = jpeg.encode(picture, QUALITY), 0
    cpu = time.process_time()
    with opened("frames", endpoint, "push", linger_ms=5000) as frames:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            if part == "work":
                data = jpeg.encode(picture, QUALITY)
            frame = Frame(
                sender="capture.bench.1", camera="cam0", run=1, seq=seq, captured_at=time.time(), width=WIDTH,
                height=HEIGHT, encoding="jpeg", age_ms=0.1, clock=clock.reading(), media_time_s=seq / 30,
            )  # fmt: skip
            seq += frames.send([frame.kind.encode(), pack(frame), data], timeout_ms=1000)
        while not frames.send([END, b""], timeout_ms=1000):
            pass
    return time.process_time() - cpu, seq


def _endpoint(way: str, folder: Path, port: int) -> Endpoint:
    return Endpoint.of(f"tcp://127.0.0.1:{port}", keys=folder, listen=None, everywhere=way == "curve")


def _picture() -> NDArray[np.uint8]:
    """Return one picture of the sample clip, (360, 640, 3) uint8: noise would compress, and so cost, otherwise."""
    reader = cv2.VideoCapture(str(media.sample("woman.mp4")))
    found, picture = reader.read()
    reader.release()
    if not found:
        raise SystemExit("the sample clip cannot be read: python -m common.media")
    return np.ascontiguousarray(cv2.resize(picture, (WIDTH, HEIGHT)), np.uint8)


if __name__ == "__main__":
    sys.exit(main())
