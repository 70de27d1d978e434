"""``launch.py`` itself, started with a configuration, and every process that it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil

from bench.report import ROOT
from common import config as configuration
from common.settings import Config


class Launched:
    """``launch.py`` with this configuration; ends with the block. It says what it has to say into ``folder``."""

    def __init__(self, config: Config, folder: Path, *, window: bool = False) -> None:
        file, self._log = folder / "given.json", folder / "launch.log"
        configuration.save(config, file)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "launch.py"), *([] if window else ["--headless"]), "--config", str(file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def pids(self) -> dict[str, int]:
        """Return the processes by name, launch.py's own among them."""
        pids, numbers = {"launch": self._process.pid}, Counter[str]()
        for child in psutil.Process(self._process.pid).children():
            stage = re.search(r"stages\.(\w+)", " ".join(child.cmdline()))
            name = stage.group(1) if stage else "other"
            numbers[name] += 1
            pids[f"{name}.{numbers[name]}"] = child.pid
        return pids

    def check(self) -> None:
        """Raise SystemExit, with what was said last, when it has ended."""
        if self._process.poll() is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
            raise SystemExit("\n".join(["launch.py has ended:", *said]))

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
