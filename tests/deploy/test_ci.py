"""Known faults of packages: asked for beside the tests, and when nobody could be asked, that is said last of all."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_ports

# Instead of make. The audit ends when the tests have begun: whoever runs one after the other waits in vain.
MAKE = """#!/bin/sh
case "$1" in
audit)
  tries=0
  until [ -e tests-began ]; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || { echo "the tests do not begin"; exit 3; }
    sleep 0.05
  done
  echo "pip-audit was NOT asked: nobody answers"
  exit AUDIT;;
test) touch tests-began; echo 0 > .venv/pytest-status;;
esac
"""


@pytest.mark.parametrize("audit", [0, 1])
def test_the_audit_runs_beside_the_tests_and_ends_the_report(tmp_path: Path, audit: int) -> None:
    for name in (".ci", ".venv/bin", "bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    make = tmp_path / "bin/make"
    make.write_text(MAKE.replace("AUDIT", str(audit)))
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, timeout=60)
    said = done.stdout.strip().splitlines()
    assert done.returncode == audit, done.stdout + done.stderr
    assert "KNOWN FAULTS OF PACKAGES WERE NOT ASKED FOR" in said[-1]
    assert said.index("pip-audit was NOT asked: nobody answers") > next(
        number for number, line in enumerate(said) if line.startswith("-- make test ")
    )


@pytest.fixture(params=["nobody listens", "nobody answers"])
def proxy(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a way out that leads nowhere."""
    [port] = free_ports(1)
    with socket.socket() as listener:
        if request.param == "nobody answers":
            listener.bind(("127.0.0.1", port))
            listener.listen()
        yield port


def test_a_service_that_cannot_be_reached_costs_seconds_and_is_said(proxy: int) -> None:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment = kept | {"HTTPS_PROXY": f"http://127.0.0.1:{proxy}"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/faults.py"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "pip-audit was NOT asked: " in done.stdout, done.stdout
    assert time.monotonic() - began < 15
