"""What the benchmarks share: the machine they ran on, medians, processor time and memory by process, and the table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
Value = str | int | float | None
T = TypeVar("T")

# f32: avx2, avx512f; bf16: avx512_bf16, amx_bf16, bf16 (ARM); int8: avx_vnni, avx512_vnni, amx_int8, i8mm (ARM)
_INSTRUCTIONS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm",
)  # fmt: skip


def machine() -> dict[str, Value]:
    """Return what a figure depends on: processor and the instructions that precision hangs on, cores, memory, system,
    Python, and how busy the machine is."""
    processor, instructions = platform.processor() or platform.machine(), "not known"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
        flags = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
        instructions = " ".join(name for name in _INSTRUCTIONS if name in flags) or "none of note"
    return {
        "processor": processor,
        "instructions": instructions,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie; nan for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def median(values: Iterable[float]) -> float:
    """Return the median; nan for none."""
    kept = list(values)
    return statistics.median(kept) if kept else float("nan")


@dataclass(slots=True)
class Report:
    """One benchmark's figures, printed as tables and kept as JSON.

    Args:
        name: of the benchmark.
        what: what was measured, in a sentence.
        figures: by name, functions that draw a plot into a PNG file and say where it is (``bench/plots.py``).
    """

    name: str
    what: str
    settings: dict[str, Value] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Value]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Value] = field(default_factory=machine)
    figures: dict[str, Callable[[Path], str]] = field(default_factory=dict)

    def add(self, table: str, **figures: Value) -> None:
        """Append a row to a table; rows of one table have the same columns."""
        self.tables.setdefault(table, []).append(figures)

    def show(self) -> None:
        """Print everything."""
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(f"[bold]{self.name}[/bold]: {self.what}", highlight=False)
        for facts in (self.machine, self.settings):
            if facts:
                console.print(" · ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
        for title, rows in self.tables.items():
            table = Table(*rows[0], title=title, title_justify="left")
            for row in rows:
                table.add_row(*(shown(value) for value in row.values()))
            console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)

    def keep(self) -> None:
        """Write the figures and draw the plots beside them, and say where they are."""
        path = self.save()
        print(f"kept in {path}")
        for name, draw in self.figures.items():
            print(draw(path.with_name(f"{path.stem}-{name}.png")))

    def save(self) -> Path:
        """Write the figures to ``runs/bench`` and return the file."""
        folder = ROOT / "runs" / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
        content = {
            "name": self.name, "what": self.what, "machine": self.machine, "settings": self.settings,
            "tables": self.tables, "notes": self.notes,
        }  # fmt: skip
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        return path


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used, by name."""

    at: float  # monotonic seconds
    cpu_s: dict[str, float]
    memory_mb: dict[str, float]  # proportional set size where the system knows it, else what is the process's own

    def cpu_since(self, before: Usage) -> dict[str, float]:
        """Return the seconds of processor time that each used since."""
        return {name: spent - before.cpu_s.get(name, 0.0) for name, spent in self.cpu_s.items()}


def usage(processes: dict[str, int], *, memory: bool = True) -> Usage:
    """Measure processes, given by name and id; one that has ended is left out. Memory costs some milliseconds each."""
    cpu_s: dict[str, float] = {}
    memory_mb: dict[str, float] = {}
    at = time.monotonic()
    for name, pid in processes.items():
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu_s[name] = times.user + times.system
            if memory:
                full = process.memory_full_info()
                memory_mb[name] = getattr(full, "pss", full.uss) / 2**20
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return Usage(at, cpu_s, memory_mb)


def by_pool(figures: dict[str, float]) -> dict[str, float]:
    """Sum figures of ``detection.1``, ``detection.2``, … under ``detection``."""
    summed: dict[str, float] = {}
    for name, value in figures.items():
        pool = name.partition(".")[0]
        summed[pool] = summed.get(pool, 0.0) + value
    return summed


def in_turn(ways: Sequence[T], rounds: int) -> list[T]:
    """Return an order that compares fairly on a machine whose speed drifts: A B B A A B …"""
    order: list[T] = []
    for number in range(rounds):
        order += ways if number % 2 == 0 else list(reversed(ways))
    return order


def shown(value: Value) -> str:
    """Return a figure with as many digits as it deserves."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return "–" if value is None else str(value)
