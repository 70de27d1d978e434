"""No two processes send under one name, also where names of machines and numbers of processes are the same."""

from __future__ import annotations

import os
import subprocess
import sys

from common.instance import instance_of
from common.messages import Ready
from tests.conftest import ROOT, stage_environment
from tests.hosts import need_namespaces


def test_a_process_has_a_name_that_messages_accept() -> None:
    assert Ready(sender=instance_of("detection"), pool="detection", last_job=-1).sender.endswith(f".{os.getpid()}")
    assert instance_of("detection", 7).rsplit(".", 1) == [instance_of("detection").rsplit(".", 1)[0], "7"]


def test_containers_that_have_their_machines_name_and_count_from_one_are_told_apart() -> None:
    need_namespaces()
    names = [
        subprocess.run(
            ["unshare", "--pid", "--fork", sys.executable, "-c",
             "from common.instance import instance_of; print(instance_of('detection'))"],
            cwd=ROOT, env=stage_environment(), capture_output=True, text=True, check=True, timeout=60,
        ).stdout.strip()
        for _ in range(2)
    ]  # fmt: skip
    assert all(name.endswith(".1") for name in names)
    assert names[0] != names[1]
