"""A subscriber that reads nothing for a while is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.settings import Config
from common.transport import opened
from tests.conftest import stage_environment, wait_until

READS_NOTHING = """
import sys
from common.transport import opened, terminate
socket = opened("previews", sys.argv[1], "sub")
socket.subscribe(b"preview.")
print("subscribed", flush=True)
sys.stdin.readline()
read = 0
while socket.receive(timeout_ms=2000) is not None:
    read += 1
print("read", read, flush=True)
socket.close()
terminate()
"""


@pytest.mark.parametrize("publisher_ends", [False, True])
def test_a_viewer_that_was_paused_goes_on(config: Config, tmp_path: Path, publisher_ends: bool) -> None:
    endpoint = config.endpoint("previews")
    publisher = opened("previews", endpoint, "xpub", bind=True)
    with subprocess.Popen(
        [sys.executable, "-c", READS_NOTHING, endpoint], env=stage_environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as viewer:  # fmt: skip
        assert viewer.stdin is not None and viewer.stdout is not None
        assert viewer.stdout.readline() == "subscribed\n"
        wait_until(publisher.receive, 10, "the subscription")
        until = time.monotonic() + 4.5  # longer than heartbeats would have waited for an answer

        def full_for_long() -> bool:
            publisher.send([b"preview.cam0", b"map", bytes(200_000)])
            return time.monotonic() > until

        wait_until(full_for_long, 10)
        if publisher_ends:
            publisher.close()
        print(file=viewer.stdin, flush=True)
        assert viewer.stdout.readline().startswith("read ")
        viewer.wait(10)
        assert viewer.returncode == 0
    publisher.close()
