"""Raw frames from one process to another: Mien's transport with all its checks, bare pyzmq, and what others offer.

    python bench/transport.py [--seconds 1.5] [--rounds 5] [--ways mien,bare,…] [--sizes 640x360,…] [--over tcp,ipc]

All ways run in turn in one run: over loopback TCP, as between machines and as imagezmq and NetGear do by default, and
over ipc. Mien's header is packed, unpacked and checked for each frame. Every receiver reads all of each picture once
(its 64-bit words are summed), as whoever looks at it has to: what a way puts off until then counts, too. ``shared`` is
what camera and conductor of one machine do: the picture goes into a ring in shared memory, the message says where.

Targets: at least 0.8 of what bare pyzmq does with the same queue lengths, copying (its default) or not, whichever is
quicker here, and at least as fast as the better of imagezmq and VidGear's NetGear, which run with their defaults, but
NetGear without JPEG: raw frames against raw frames. They are left out where they are missing (``pip install imagezmq
colorlog simplejpeg``, then ``pip install --no-deps vidgear``). ``cpu_ms`` is the processor time of both processes a
frame: it holds where other programs use the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import plots
from bench.report import Report, in_turn, median
from common import clock
from common.analyse import private_endpoints
from common.channels import CHANNELS
from common.child import environment
from common.config import load
from common.messages import Frame, MessageError, kind_of, pack, unpack
from common.ring import RingReader, RingWriter, remove_rings, slots_for
from common.settings import Config
from common.transport import opened, terminate

Pixels = NDArray[np.uint8]
Run = tuple[str, str]  # which way, over what
SIZES = {"640x360": (640, 360), "1920x1080": (1920, 1080), "3840x2160": (3840, 2160)}
WAYS = {
    "mien": "Mien",
    "bare": "bare pyzmq",
    "bare-copy": "bare pyzmq, copying",
    "shared": "Mien, shared memory",
    "imagezmq": "imagezmq, REQ/REP",
    "imagezmq-pub": "imagezmq, PUB/SUB",
    "netgear": "NetGear, PAIR",
}
BARE = ("bare", "bare-copy")
OTHERS = ("imagezmq", "imagezmq-pub", "netgear")
END = b"end"
TARGET, BETTER = 0.8, 1.0
NONE = float("nan")  # nothing came in time


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="of sending, each round")
    parser.add_argument("--rounds", type=int, default=5, help="of each way and size")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--over", default="tcp,ipc" if os.name == "posix" else "tcp")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.receive:
        receive(*given.receive.split(","))
        return 0
    ways = [way for way in given.ways.split(",") if way in WAYS]
    report = Report("transport", "raw frames from one process to another, frames/s (median of the rounds)")
    report.settings = {"seconds": given.seconds, "rounds": given.rounds}
    for package, affected in (("imagezmq", OTHERS[:2]), ("vidgear", OTHERS[2:])):
        if importlib.util.find_spec(package) is None and set(affected) & set(ways):
            ways = [way for way in ways if way not in affected]
            report.notes.append(f"{package} is not installed: left out")
    drawn: dict[str, dict[str, float]] = {}
    overs = given.over.split(",")
    if wrong := set(overs) - {"tcp", "ipc"}:
        parser.error(f"--over is tcp, ipc or both, not {', '.join(sorted(wrong))}")
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        for size in given.sizes.split(","):
            width, height = SIZES[size]
            # Shared memory is the same however its small messages travel.
            here = [(way, over) for over in overs for way in ways if way != "shared"]
            if "shared" in ways and os.name == "posix" and slots_for(width * height * 3):
                here.append(("shared", "ipc"))
            rates: dict[Run, list[float]] = {run: [] for run in here}
            spent: dict[Run, list[float]] = {run: [] for run in here}
            for run in in_turn(here, given.rounds):
                rate, cpu_ms = measure(run, width, height, given.seconds, Path(folder))
                rates[run].append(rate)
                spent[run].append(cpu_ms)
            summary(report, size, overs, rates, spent)
            drawn[size] = {_named(run): median(values) for run, values in rates.items()}
    report.notes.append(
        "lowest, highest: of the rounds. Ratios are between medians; shared_ratio is that of Mien with shared memory. "
        "Of bare pyzmq's two ways the quicker one counts."
    )
    report.figures["rates"] = lambda path: plots.bars(
        path, "Raw frames from process to process", drawn, y="frames/s (logarithmic)", log_y=True
    )
    report.show()
    report.keep()
    return 0


def summary(
    report: Report, size: str, overs: Sequence[str], rates: dict[Run, list[float]], spent: dict[Run, list[float]]
) -> None:
    """Write the rows of one size."""
    middle = {run: median(values) for run, values in rates.items()}
    for run, values in rates.items():
        report.add(
            "frames", size=size, over=_over(run), way=WAYS[run[0]], frames_s=middle[run], lowest=min(values),
            highest=max(values), cpu_ms=median(spent[run]),
        )  # fmt: skip
    shared = next((rate for (way, _), rate in middle.items() if way == "shared"), NONE)
    for over in overs:
        here = {way: rate for (way, by), rate in middle.items() if by == over and way != "shared"}
        bare = max((way for way in BARE if way in here), key=lambda way: here[way], default=None)
        for way in (way for way in here if way in BARE + OTHERS):
            ratio = here.get("mien", NONE) / (here[way] or NONE)
            target = TARGET if way == bare else BETTER if way in OTHERS else None
            report.add(
                "Mien against each", size=size, over=over, way=WAYS[way], ratio=ratio, target=target,
                reached=None if target is None else "yes" if ratio >= target else "no",
                shared_ratio=shared / (here[way] or NONE),
            )  # fmt: skip


def _over(run: Run) -> str:
    return "–" if run[0] == "shared" else run[1]


def _named(run: Run) -> str:
    return WAYS[run[0]] if run[0] == "shared" else f"{WAYS[run[0]]}, {run[1]}"


def _endpoint(over: str, folder: Path) -> str:
    if over == "ipc":
        return private_endpoints(folder)["frames"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def measure(run: Run, width: int, height: int, seconds: float, folder: Path) -> tuple[float, float]:
    """Send frames as fast as they go for some seconds; return how many a second arrived and passed the check, and the
    processor time of both sides a frame, ms."""
    way, over = run
    endpoint = _endpoint(over, folder)
    command = [sys.executable, __file__, "--receive", f"{way},{endpoint},{width},{height}"]
    with (
        (folder / "receiver.log").open("w+") as log,  # NetGear complains at its end
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(None)) as receiver,
    ):
        assert receiver.stdout is not None
        try:
            if receiver.stdout.readline().strip() != "listening":
                log.seek(0)
                raise SystemExit(f"the receiver of {WAYS[way]} does not start:\n{log.read()}")
            pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
            cpu = time.process_time()
            SENDERS[way](endpoint, pixels, seconds, receiver)
            said = receiver.communicate(timeout=60)[0].split()
            if len(said) != 3:
                log.seek(0)
                raise SystemExit(f"the receiver of {WAYS[way]} has ended early:\n{log.read()}")
            rate, count, spent = map(float, said)
            return rate, (spent + time.process_time() - cpu) / max(count, 1) * 1e3
        finally:
            receiver.kill()


def receive(way: str, endpoint: str, width: str, height: str) -> None:
    """The other process: take frames until the end; print how many came a second, how many, and the time it took."""
    take = RECEIVERS[way](endpoint, int(width), int(height))
    print("listening", flush=True)
    take()  # the first is for the connection
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while take():
        count += 1
    print(count / (time.perf_counter() - began), count, time.process_time() - cpu, flush=True)


def read(picture: Any) -> int:
    """Read every byte of a picture (a buffer) once, and return how many there were."""
    words = np.frombuffer(picture, np.uint64)
    words.sum()
    return words.nbytes


# --- Mien ---


def _frame(seq: int, pixels: Pixels, **more: Any) -> Frame:
    height, width = pixels.shape[:2]
    return Frame(
        sender="capture.bench.1", camera="cam0", run=1, seq=seq, captured_at=time.time(), width=width, height=height,
        age_ms=0.1, clock=clock.reading(time.monotonic_ns()), media_time_s=seq / 30, **more,
    )  # fmt: skip


def _send_mien(endpoint: str, pixels: Pixels, seconds: float, receiver: Any) -> None:
    ends, seq = time.perf_counter() + seconds, 0
    with opened("frames", endpoint, "push", linger_ms=5000) as socket:
        while time.perf_counter() < ends:
            frame = _frame(seq, pixels)
            seq += socket.send([frame.kind.encode(), pack(frame), pixels], timeout_ms=100)
        while not socket.send([END, b""], timeout_ms=100):
            pass


def _receiver_mien(endpoint: str, width: int, height: int) -> Callable[[], bool]:
    socket, size = opened("frames", endpoint, "pull", bind=True), width * height * 3

    def take() -> bool:
        while (parts := socket.receive(timeout_ms=100)) is None:
            pass
        if bytes(parts[0][:16]) == END:
            socket.close()
            terminate()
            return False
        assert kind_of(bytes(parts[0][:256])) is Frame
        frame = unpack(Frame, parts[1])
        assert frame.width * frame.height * 3 == read(parts[2]) == size
        return True

    return take


def _shared_config(endpoint: str) -> Config:
    folder = Path(endpoint.removeprefix("ipc://")).parent
    return load(overrides={"run_dir": str(folder), "cameras": {"cam0": {}}}, environment={})


def _send_shared(endpoint: str, pixels: Pixels, seconds: float, receiver: Any) -> None:
    config = _shared_config(endpoint)
    ring, ends, seq, taken = RingWriter(config, f"cam{time.monotonic_ns()}"), time.perf_counter() + seconds, 0, 0
    ahead = slots_for(pixels.nbytes) // 2  # frames that have not been looked at
    with (
        opened("frames", endpoint, "push", linger_ms=5000) as socket,
        opened("findings", f"{endpoint}-back", "pull", bind=True) as back,
    ):
        while time.perf_counter() < ends:
            # A message is small, the picture is not in it: what holds a camera back here are results that come back.
            while back.receive(timeout_ms=1 if seq - taken >= ahead else 0) is not None:
                taken += 1
            if seq - taken >= ahead or (slot := ring.put(pixels)) is None:
                continue
            frame = _frame(seq, pixels, slot=slot)
            seq += socket.send([frame.kind.encode(), pack(frame)], timeout_ms=100)
        while not socket.send([END, b""], timeout_ms=100):
            pass
        # The ring's files go with it: not before the last picture has been looked at.
        while taken < seq and receiver.poll() is None:
            taken += back.receive(timeout_ms=100) is not None
    ring.close()
    remove_rings(config)


def _receiver_shared(endpoint: str, width: int, height: int) -> Callable[[], bool]:
    socket, size = opened("frames", endpoint, "pull", bind=True), width * height * 3
    back, ring = opened("findings", f"{endpoint}-back", "push"), RingReader(_shared_config(endpoint))

    def take() -> bool:
        while (parts := socket.receive(timeout_ms=100)) is None:
            pass
        if bytes(parts[0][:16]) == END:
            socket.close()
            back.close()
            terminate()
            return False
        assert kind_of(bytes(parts[0][:256])) is Frame
        frame = unpack(Frame, parts[1])
        if frame.slot is None:
            raise MessageError("a picture in shared memory was expected")
        held = ring.hold(frame.slot, frame.width, frame.height)
        assert read(ring.picture(frame.slot, frame.width, frame.height)) == size
        ring.check(frame.slot, frame.width, frame.height)
        del held
        back.send([b"taken"], timeout_ms=100)
        return True

    return take


# --- bare pyzmq ---


def _send_bare(endpoint: str, pixels: Pixels, seconds: float, receiver: Any, *, copies: bool = False) -> None:
    ends = time.perf_counter() + seconds
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    with socket:
        socket.linger = 5000
        socket.sndhwm = CHANNELS["frames"].send_queue
        raw: Any = pixels
        socket.connect(endpoint)
        while time.perf_counter() < ends:
            socket.send(raw, copy=copies)
        socket.send(END)


def _receiver_bare(endpoint: str, width: int, height: int, *, copies: bool = False) -> Callable[[], bool]:
    context, size = zmq.Context(), width * height * 3
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = CHANNELS["frames"].receive_queue
    socket.bind(endpoint)

    def take() -> bool:
        frame: Any = socket.recv(copy=copies)
        if len(frame) == size:
            return read(frame if copies else frame.buffer) == size
        socket.close()
        context.term()
        return False

    return take


# --- what others offer ---


def _send_imagezmq(endpoint: str, pixels: Pixels, seconds: float, receiver: Any, *, asks: bool = True) -> None:
    import imagezmq

    # With REQ/REP the sender connects; with PUB/SUB it is the one that binds.
    sender, ends = imagezmq.ImageSender(connect_to=endpoint, REQ_REP=asks), time.perf_counter() + seconds
    if not asks:
        _until_it_comes(sender, pixels, receiver)
        ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        sender.send_image("cam0", pixels)
    end = np.zeros((1, 1, 3), np.uint8)
    sender.send_image("end", end)
    while not asks and receiver.poll() is None:  # a publisher does not know what has come
        sender.send_image("end", end)
        _pause(0.02)
    sender.close()


def _until_it_comes(sender: Any, pixels: Pixels, receiver: Any) -> None:
    """Send until the subscription has come through: the receiver says so."""
    import select

    while not select.select([receiver.stdout], [], [], 0.02)[0]:
        sender.send_image("cam0", pixels)
    receiver.stdout.readline()


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # there is nothing to poll on a publisher


def _receiver_imagezmq(endpoint: str, width: int, height: int, *, asks: bool = True) -> Callable[[], bool]:
    import imagezmq

    hub, size, first = imagezmq.ImageHub(open_port=endpoint, REQ_REP=asks), width * height * 3, [not asks]

    def take() -> bool:
        name, picture = hub.recv_image()
        if asks:
            hub.send_reply(b"OK")
        if first[0]:
            first[0] = False
            print("connected", flush=True)
        if name == "end":
            return False
        assert read(picture) == size
        return True

    return take


def _netgear(endpoint: str, *, receives: bool) -> Any:
    from vidgear.gears import NetGear

    protocol, _, place = endpoint.partition("://")
    address, _, port = place.rpartition(":") if protocol == "tcp" else (place, "", "1")
    options: Any = {"jpeg_compression": False, "max_retries": 50}
    return NetGear(address=address, port=port, protocol=protocol, pattern=0, receive_mode=receives, **options)


def _send_netgear(endpoint: str, pixels: Pixels, seconds: float, receiver: Any) -> None:
    gear, ends = _netgear(endpoint, receives=False), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        gear.send(pixels)
    gear.send(np.zeros((1, 1, 3), np.uint8))
    receiver.wait(60)
    gear.close()


def _receiver_netgear(endpoint: str, width: int, height: int) -> Callable[[], bool]:
    gear, size = _netgear(endpoint, receives=True), width * height * 3

    def take() -> bool:
        picture = gear.recv()
        if picture is not None and picture.nbytes == size:
            return read(picture) == size
        gear.close()
        return False

    return take


SENDERS: dict[str, Callable[[str, Pixels, float, Any], None]] = {
    "mien": _send_mien, "shared": _send_shared, "imagezmq": _send_imagezmq, "bare": _send_bare,
    "bare-copy": lambda *given: _send_bare(*given, copies=True),
    "imagezmq-pub": lambda *given: _send_imagezmq(*given, asks=False), "netgear": _send_netgear,
}  # fmt: skip
RECEIVERS: dict[str, Callable[[str, int, int], Callable[[], bool]]] = {
    "mien": _receiver_mien, "shared": _receiver_shared, "imagezmq": _receiver_imagezmq, "bare": _receiver_bare,
    "bare-copy": lambda *given: _receiver_bare(*given, copies=True),
    "imagezmq-pub": lambda *given: _receiver_imagezmq(*given, asks=False), "netgear": _receiver_netgear,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
