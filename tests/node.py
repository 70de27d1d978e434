"""Node with the packages of the examples, installed once for all runs of the tests."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import platformdirs
from filelock import FileLock

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def node_folder() -> Path:
    """Return a folder in which scripts find what ``examples/package.json`` asks for."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program} is missing: apt-get install nodejs npm"
    wanted = (EXAMPLES / "package.json").read_bytes()
    folder = Path(platformdirs.user_cache_dir("mien-tests", appauthor=False)) / hashlib.sha256(wanted).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed"
    with FileLock(folder / "lock"):
        if not done.exists():
            shutil.copy(EXAMPLES / "package.json", folder)
            # The package carries its binaries: nothing has to be compiled, and no script of it has to run.
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
            assert ran.returncode == 0, ran.stderr
            done.touch()
    return folder
