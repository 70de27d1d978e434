"""All benchmarks in turn, their tables in one Markdown file.

    python -m bench.all [--only rivals,limit] [--quick] [--out FILE]

Takes about forty minutes, on a machine that has nothing else to do; one that ends with an error is named and the others
go on. ``--quick`` is for seeing that all of them work: its figures mean little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import ROOT, shown

FOLDER = ROOT / "runs" / "bench"
LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Bench:
    """One command: its module, what it is given, and what it is given to be quick."""

    module: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


BENCHES = {
    "rivals": Bench("rivals", quick=("--rounds", "1", "--seconds", "1")),
    "limit": Bench("limit", ("--profile",), ("--rounds", "1", "--seconds", "1")),
    "transport": Bench("transport", quick=("--rounds", "1", "--seconds", "0.2")),
    "detector": Bench("detector", quick=("--quick", "--rounds", "3")),
    "networks": Bench("networks", quick=("--rounds", "5")),
    "growth": Bench("growth", quick=("faces", "cameras", "pipelines", "history", "--seconds", "0.5")),
    "pipeline": Bench("pipeline", quick=("--seconds", "4", "--rounds", "1")),
    "pipeline-crowd": Bench("pipeline", ("--source", "demo:crowd"), ("--seconds", "4", "--rounds", "1")),
    "quiet": Bench("quiet", quick=("--empty", "16", "--seconds", "4", "--returns", "1")),
    "dispatch": Bench("dispatch", quick=("--seconds", "0.5")),
    "conductor": Bench("conductor", quick=("--frames", "60")),
}


def main(arguments: list[str] | None = None) -> int:
    """Run and write; return the exit code: 1 when one of them did not work."""
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHES), metavar="NAME,…", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: all-….md in runs/bench")
    given = parser.parse_args(arguments)
    names = [name for name in given.only.split(",") if name]
    if unknown := set(names) - set(BENCHES):
        parser.error(f"unknown benchmark {unknown.pop()!r}: one of {', '.join(BENCHES)}")
    out: Path = given.out or FOLDER / f"all-{time.strftime('%Y%m%d-%H%M%S')}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    parts, failed = ["# Benchmarks", ""], []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        text = run(BENCHES[name], quick=given.quick)
        if text is None:
            failed.append(name)
            text = f"{name} did not work.\n"
        parts += [text]
        out.write_text("\n".join(parts), encoding="utf-8")
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"written to {out}" + (f"; did not work: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(bench: Bench, *, quick: bool) -> str | None:
    """Run one and return its tables as Markdown; None when it did not work, its message is on standard error."""
    command = [sys.executable, str(ROOT / "bench" / f"{bench.module}.py"), *bench.arguments]
    command += bench.quick if quick else ()
    before = time.time()
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"{bench.module} was still running after {LIMIT_S:.0f} s", file=sys.stderr)
        return None
    kept = [path for path in FOLDER.glob(f"{bench.module}-*.json") if path.stat().st_mtime >= before - 1]
    if done.returncode != 0 or not kept:
        return None
    newest = max(kept, key=lambda path: path.stat().st_mtime)
    return markdown(json.loads(newest.read_text(encoding="utf-8")), " ".join(command[1:]).replace(f"{ROOT}/", ""))


def markdown(content: dict[str, Any], command: str) -> str:
    """Return one benchmark's figures as a section."""
    lines = [f"## {content['name']}", "", f"{content['what'][:1].upper()}{content['what'][1:]}.", ""]
    lines += [f"`python {command}`", ""]
    for facts in (content["machine"], content["settings"]):
        if facts:
            lines += [" · ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for title, rows in content["tables"].items():
        lines += [f"**{title}**", "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(shown(value) for value in row.values()) + " |" for row in rows]
        lines.append("")
    lines += [f"{note}\n" for note in content["notes"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
