"""Running ``launch.py analyse`` as a person does, for the tests that need whole analyses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import psutil

from common import media
from common.tables import unfinished
from tests.conftest import ROOT, stage_environment, wait_until

Rows = list[dict[str, Any]]
LIMIT_S = 100.0


class Analysing:
    """A running ``launch.py analyse``; ends with the ``with`` block.

    Args:
        out: where the results go; what it says goes beside.
    """

    def __init__(self, source: Path | str, out: Path, *arguments: str) -> None:
        self.out = out
        self.log = out.with_suffix(".log")
        command = [sys.executable, str(ROOT / "launch.py"), "analyse", str(source), "--out", str(out), *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=stage_environment(MIEN_DATA_DIR=str(media.data_dir())),
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )

    def said(self) -> str:
        """Return all that it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def rows_so_far(self) -> int:
        """Return how many rows are on disk, while it runs."""
        path = unfinished(self.out)
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def await_rows(self, count: int) -> None:
        """Return when so many rows are on disk."""
        wait_until(lambda: self.rows_so_far() >= count or self.process.poll() is not None, LIMIT_S, f"{count} rows")
        assert self.rows_so_far() >= count, self.said()

    def pid_of(self, child: str) -> int:
        """Return the process of a stage, which ``--verbose`` tells."""
        found = re.search(rf"started {re.escape(child)} \(process (\d+)", self.said())
        assert found, self.said()
        return int(found[1])

    def wait(self) -> int:
        """Return its exit code."""
        return self.process.wait(LIMIT_S)

    def __enter__(self) -> Analysing:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def analysed(source: Path | str, out: Path, *arguments: str, code: int = 0) -> Rows:
    """Analyse as JSON lines and return the rows."""
    with Analysing(source, out, *arguments) as run:
        assert run.wait() == code, run.said()
    return read_rows(out)


def read_rows(path: Path) -> Rows:
    """Return the rows of a JSON-lines table."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def clip(source: Path, target: Path, *arguments: str) -> Path:
    """Make another video of one with ffmpeg's arguments; return ``target``."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(source), *arguments, str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return target


def gone(pids: list[int]) -> bool:
    """Whether none of these processes is alive any more."""

    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(alive(pid) for pid in pids)
