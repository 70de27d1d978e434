"""The name under which a process sends: stage, machine, process."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path

from common import clock


def instance_of(stage: str, pid: int | None = None) -> str:
    """Return ``stage.machine-place.pid`` of a process here, None: this one. No other has it: jobs come under it."""
    return f"{stage}.{_machine()}.{pid or os.getpid()}"


@functools.cache
def _machine() -> str:
    """Return the machine's name, then what tells apart machines that were copied with their name, and containers.

    The containers of one machine may have its name, too, and count their processes from 1, each of them.
    """
    name = "".join(c if (c.isalnum() and c.isascii()) or c == "-" else "-" for c in socket.gethostname())[:32] or "host"
    processes = Path("/proc/self/ns/pid")
    counted = processes.readlink().name if processes.is_symlink() else ""
    return f"{name}-{hashlib.sha256(f'{clock.host()} {counted}'.encode()).hexdigest()[:6]}"
