"""Faults put into Mien's own processes: Python loads this before a stage when its folder is on PYTHONPATH.

What goes wrong, and in which stage, comes from environment variables: ``CHAOS_<what>__<stage>``.
"""

from __future__ import annotations

import os
import random
import sys

STAGE = next(
    (word.removeprefix("stages.") for word in sys.orig_argv if word.startswith("stages.")),
    "",
)


def corrupt(share: float) -> None:
    """One byte of one part is another one, in this share of the messages that this process sends."""
    from common import transport

    chance = random.Random(os.getpid())
    send = transport._send

    def damaged(socket: object, data: object, flags: int, copied: bool) -> object:
        if chance.random() < share and len(memoryview(data).cast("B")):  # type: ignore[arg-type]
            changed = bytearray(memoryview(data).cast("B"))  # type: ignore[arg-type]
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            data = bytes(changed)
        return send(socket, data, flags, copied)  # type: ignore[arg-type]

    transport._send = damaged  # type: ignore[assignment]


def leak(mb_a_job: float) -> None:
    """Every job leaves so much memory behind."""
    from common.worker import Worker

    kept: list[bytearray] = []
    take = Worker._take

    def leaking(worker: Worker, parts: list[memoryview]) -> None:
        kept.append(bytearray(b"x") * int(mb_a_job * 2**20))
        take(worker, parts)

    Worker._take = leaking  # type: ignore[method-assign]


def fail_networks(after: int, times: int) -> None:
    """The network's run fails so many times, after so many that went well; -1: for ever."""
    from models import runtime

    class Failing:
        def __init__(self, request: object) -> None:
            self._request = request

        def infer(self, *args: object, **options: object) -> object:
            global _runs
            _runs += 1
            if _runs > after and (times < 0 or _runs <= after + times):
                raise RuntimeError("Exception from the device:\nout of resources (a made-up fault)")
            return self._request.infer(*args, **options)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._request, name)

    begin, recover = runtime.Network.__init__, runtime.Network._recover

    def begun(network: runtime.Network, *args: object, **options: object) -> None:
        begin(network, *args, **options)  # type: ignore[arg-type]
        network._request = Failing(network._request)  # type: ignore[assignment]

    def recovered(network: runtime.Network, why: str) -> None:
        recover(network, why)
        network._request = Failing(network._request)  # type: ignore[assignment]

    runtime.Network.__init__ = begun  # type: ignore[method-assign, assignment]
    runtime.Network._recover = recovered  # type: ignore[method-assign]


_runs = 0


def set_clock(path: str) -> None:
    """The wall clock is off by what stands in a file, seconds as a float64; it may change at any time."""
    import mmap
    import struct
    import time

    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    right = time.time
    time.time = lambda: right() + float(struct.unpack_from("d", shared)[0])


def taken(kind: str) -> bool:
    """Whether another process of this stage has had this fault already: its replacement is sound."""
    place = os.environ.get("CHAOS_ONCE")
    if place is None:
        return False
    try:
        os.close(os.open(os.path.join(place, f"{kind}-{STAGE}"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return True
    return False


def main() -> None:
    for name, value in os.environ.items():
        kind, _, stage = name.removeprefix("CHAOS_").partition("__")
        if not name.startswith("CHAOS_") or not STAGE or stage not in ("ALL", STAGE.upper()) or taken(kind):
            continue
        if kind == "CORRUPT":
            corrupt(float(value))
        elif kind == "LEAK":
            leak(float(value))
        elif kind == "FAIL":
            after, _, times = value.partition(",")
            fail_networks(int(after), int(times))
        elif kind == "CLOCK":
            set_clock(value)


main()
