"""Machines and the net between them: network namespaces, and a process that carries packets with delay and loss.

Each machine has a namespace, a TUN interface with an address, names of its own in ``/etc/hosts``, a clock of its own if
wanted, and everything that is started on it. Packets go from interface to interface through ``python -m tests.hosts
carry``, which holds them back, drops some, or cuts a machine off: as a cable does it, below TCP. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import ROOT, stage_environment, wait_until

NET = "10.77.0."
# Linux lets a machine made of namespaces have a monotonic clock of its own, but no wall clock: Python is told another.
_OTHER_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {off_s}
time.time_ns = lambda: int(time.time() * 1e9)
"""
_TUN, _NO_HEADER, _TUNSETIFF, _NEWNET = 0x0001, 0x1000, 0x400454CA, 0x40000000


def need_namespaces() -> None:
    """Skip where this user may not make network namespaces."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("network namespaces with TUN interfaces are made by root only")
    for tool, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        assert shutil.which(tool), f"this test needs {tool}: apt-get install {package}"


class Machine:
    """One of the machines of a ``Net``.

    Args:
        number: the last part of its address.
        clock_off_s: how far its wall clock is from the others'; its monotonic clock is its own, too.
    """

    def __init__(self, net: Net, name: str, number: int, *, clock_off_s: float = 0.0) -> None:
        self.net, self.name, self.number, self.clock_off_s = net, name, number, clock_off_s
        self.space = f"mien-{os.getpid()}-{name}"
        self.etc = Path("/etc/netns") / self.space
        self.address = f"{NET}{number}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.etc.mkdir(parents=True)
        _run("ip", "netns", "add", self.space)
        for words in ("link set lo up", "tuntap add dev wire mode tun", f"addr add {self.address}/24 dev wire",
                      "link set wire up mtu 1500"):  # fmt: skip
            _run("ip", "-n", self.space, *words.split())

    def start(self, *command: str, log: IO[bytes], stdout: int | IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start a program on this machine."""
        words = ["ip", "netns", "exec", self.space]
        environment = stage_environment()
        if self.clock_off_s:
            words += ["unshare", "--time", "--fork", "--kill-child", "--monotonic", str(int(abs(self.clock_off_s) * 2))]
            (self.etc / "sitecustomize.py").write_text(_OTHER_CLOCK.format(off_s=self.clock_off_s))
            environment = stage_environment(PYTHONPATH=str(self.etc))
        process = subprocess.Popen(
            [*words, *command], env=environment, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log
        )
        self.started.append(process)
        return process

    def believes_in(self, other: Machine) -> int:
        """Return how many connections to another machine this one takes for open."""
        words = ["ip", "netns", "exec", self.space, "ss", "--no-header", "--tcp", "--numeric", "state", "established"]
        listed = subprocess.run([*words, "dst", other.address], capture_output=True, text=True, check=True).stdout
        return len(listed.splitlines())

    def power_off(self) -> None:
        """All processes gone at once, and not a packet leaves to tell of it."""
        self.net.tell(cut=self.name)
        self.kill()

    def kill(self) -> None:
        """kill -9 whatever runs on this machine."""

        def all_gone() -> bool:
            found = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True).stdout.split()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            return not found

        wait_until(all_gone, 10, f"{self.name} is off")
        for process in self.started:
            process.wait(10)
        self.started.clear()

    def move(self, number: int) -> None:
        """Give the machine another address, and tell everybody's ``/etc/hosts``."""
        _run("ip", "-n", self.space, "addr", "del", f"{self.address}/24", "dev", "wire")
        self.number, self.address = number, f"{NET}{number}"
        _run("ip", "-n", self.space, "addr", "add", f"{self.address}/24", "dev", "wire")
        self.net.tell(at={self.name: self.address})
        self.net.write_names()

    def remove(self) -> None:
        self.kill()
        _run("ip", "netns", "del", self.space)
        shutil.rmtree(self.etc)


class Net:
    """Machines and what carries their packets. Use it as a context; everything is gone afterwards."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self._carrier: subprocess.Popen[bytes] | None = None

    def add(self, name: str, *, clock_off_s: float = 0.0) -> Machine:
        """Add a machine before ``connect``."""
        made = self.machines[name] = Machine(self, name, len(self.machines) + 1, clock_off_s=clock_off_s)
        return made

    def connect(self) -> None:
        """Plug all in."""
        self.write_names()
        wires = [f"{machine.name}={machine.space}={machine.address}" for machine in self.machines.values()]
        self._carrier = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts", "carry", *wires], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, env=stage_environment(),
        )  # fmt: skip
        assert self._carrier.stdout and self._carrier.stdout.readline() == b"carrying\n"

    def write_names(self) -> None:
        """Write everybody's ``/etc/hosts``, in place: programs that run see it, too."""
        lines = ["127.0.0.1 localhost", *(f"{machine.address} {machine.name}" for machine in self.machines.values())]
        for machine in self.machines.values():
            (machine.etc / "hosts").write_text("\n".join(lines) + "\n")

    def tell(self, **order: object) -> None:
        """Change the net: ``delay_ms``, ``loss`` (share), ``cut`` or ``join`` a machine, ``at`` which address."""
        assert self._carrier and self._carrier.stdin and self._carrier.stdout
        self._carrier.stdin.write(json.dumps(order).encode() + b"\n")
        self._carrier.stdin.flush()
        assert self._carrier.stdout.readline() == b"done\n"

    def carried(self) -> dict[str, int]:
        """Return how many packets were carried and how many dropped."""
        assert self._carrier and self._carrier.stdin and self._carrier.stdout
        self._carrier.stdin.write(b'{"count": true}\n')
        self._carrier.stdin.flush()
        found: dict[str, int] = json.loads(self._carrier.stdout.readline())
        assert self._carrier.stdout.readline() == b"done\n"
        return found

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines.values():
            machine.remove()
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()
            assert self._carrier.stdin and self._carrier.stdout
            self._carrier.stdin.close()
            self._carrier.stdout.close()


def carry(wires: Sequence[str]) -> None:
    """Carry packets between the namespaces until standard input ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    interfaces: dict[str, int] = {}
    places: dict[bytes, str] = {}
    for wire in wires:
        name, space, address = wire.split("=")
        with open(f"/run/netns/{space}", "rb") as door:
            if libc.setns(door.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {space}")
        interfaces[name] = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(interfaces[name], _TUNSETIFF, struct.pack("16sH22x", b"wire", _TUN | _NO_HEADER))
        places[_packed(address)] = name
    names = {descriptor: name for name, descriptor in interfaces.items()}
    chance = random.Random(1)
    delay_s, loss, cut = 0.0, 0.0, set[str]()
    count = {"carried": 0, "dropped": 0}
    waiting: list[tuple[float, int, str, bytes]] = []
    serial = 0
    print("carrying", flush=True)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([0, *names], [], [], pause)
        for descriptor in ready:
            if descriptor == 0:
                line = sys.stdin.buffer.readline()
                if not line:
                    return
                order = json.loads(line)
                delay_s, loss = order.get("delay_ms", delay_s * 1e3) / 1e3, order.get("loss", loss)
                cut |= {order["cut"]} if "cut" in order else set()
                cut -= {order["join"]} if "join" in order else set()
                for name, address in order.get("at", {}).items():
                    places = {place: who for place, who in places.items() if who != name} | {_packed(address): name}
                if "count" in order:
                    print(json.dumps(count), flush=True)
                print("done", flush=True)
                continue
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(descriptor, 65536):
                    target = places.get(packet[16:20])
                    if target is None or {names[descriptor], target} & cut or chance.random() < loss:
                        count["dropped"] += 1
                        continue
                    serial += 1
                    heapq.heappush(waiting, (time.monotonic() + delay_s, serial, target, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            count["carried"] += 1
            with contextlib.suppress(OSError):  # a machine's interface that is full drops, as they do
                os.write(interfaces[target], packet)


def listen(config_file: str) -> None:
    """Print results and stages' figures that come over the news, one JSON a line."""
    from common.config import load
    from common.messages import Result, Stats
    from common.news import NewsReader

    reader = NewsReader(load(Path(config_file)), ("results.", "stats."))
    while True:
        for _, message in reader.read(timeout_ms=100):
            if isinstance(message, Result):
                told: dict[str, object] = {
                    "run": message.run, "seq": message.seq, "at_s": message.media_time_s, "from": message.sender,
                    "captured_at": message.captured_at, "latency_ms": message.latency_ms, "heard": time.monotonic(),
                    "boxes": [face.box for face in message.faces] if message.analysed else None,
                    "looks": [face.expression.status for face in message.faces],
                }  # fmt: skip
                print(json.dumps(told), flush=True)
            elif isinstance(message, Stats):
                print(json.dumps({"stage": message.stage, "from": message.sender, "in_s": message.in_s}), flush=True)


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def net() -> Iterator[Net]:
    """A net without machines yet."""
    need_namespaces()
    with Net() as made:
        yield made


if __name__ == "__main__":
    (carry(sys.argv[2:]) if sys.argv[1] == "carry" else listen(sys.argv[2]))
