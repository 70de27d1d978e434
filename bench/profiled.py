"""Where the processes of a running pipeline spend their time, by py-spy where it is installed (``pip install py-spy``).

Functions are counted where they stand themselves, not with what they call; a network or an encoder counts for the
Python function that calls it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.report import Report

MOST = 8  # functions shown of each process
# Where threads wait; a system call looks alike whether it waits or works.
WAITING = (
    "Lifeline._watch ", "Poller.poll ", "GarbageCollectorThread.run ", "Condition.wait ", "EpollSelector.select ",
    "_worker (concurrent",
)  # fmt: skip


def program() -> str | None:
    """Return py-spy's path, or None where it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def start(pids: dict[str, int], seconds: float, folder: Path) -> dict[str, subprocess.Popen[bytes]]:
    """Begin to look at processes, by name, for so long."""
    spy = program()
    if spy is None:
        return {}
    command = [spy, "record", "--format", "raw", "--rate", "100", "--duration", str(max(1, round(seconds)))]
    return {
        name: subprocess.Popen(
            [*command, "--pid", str(pid), "--output", str(folder / f"{name}.txt")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for name, pid in pids.items()
    }  # fmt: skip


def finish(report: Report, started: dict[str, subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait for what was begun and write its table."""
    if program() is None:
        report.notes.append("no profile: pip install py-spy")
    for name, process in started.items():
        _, said = process.communicate(timeout=60)
        file = folder / f"{name}.txt"
        if process.returncode != 0 or not file.exists():
            report.notes.append(f"no profile of {name}: {said.decode(errors='replace').strip().splitlines()[-1:]}")
            continue
        seen: Counter[str] = Counter()
        for line in file.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            function = _function(stack.split(";")[-1])
            if not function.startswith(WAITING):
                seen[function] += int(count)
        for function, times in seen.most_common(MOST):
            percent = 100 * times / sum(seen.values())
            report.add(
                "where the time goes, waiting left out (py-spy)", process=name, function=function, percent=percent
            )


def _function(frame: str) -> str:
    """``name (file.py:12)`` without the line."""
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame


def temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for what is recorded."""
    return tempfile.TemporaryDirectory(prefix="mien-")
