"""``--record`` and ``--replay`` on a whole run: the same results again, also of a run that was killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.recording import FOLDER, SUFFIX, Recording
from common.replay import replay, said
from common.settings import Config
from tests.conftest import ROOT, stage_environment, wait_until
from tests.running import Running


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    return subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=90)


def test_a_recorded_run_says_the_same_again_whatever_of_it_is_killed(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "run.mien-recording"
    with Running(config, "demo", "--record", str(path)) as mien:
        mien.fresh_results(20)
        [conductor] = mien.processes("conductor")
        conductor.kill()
        mien.until(lambda: mien.processes("conductor") not in ([], [conductor]), "another conductor", 60)
        mien.fresh_results(20)
        settings = ("--config", str(mien.path))
    again = launch("--replay", str(path), *settings)
    assert again.returncode == 0, again.stderr
    assert "in 2 runs: all as recorded" in again.stderr
    told = {
        (one["run"], one["seq"]): one for one in map(json.loads, again.stdout.splitlines()) if one["kind"] == "results"
    }
    here = [result for result in mien.results if (result.run, result.seq) in told]
    assert len(here) >= 0.8 * len(mien.results)  # a killed conductor takes its last tenth of a second with it
    for result in here:
        assert told[result.run, result.seq]["faces"] == result.model_dump(mode="json")["faces"]
    refused = launch("--record", str(path), "--duration", "1", "--headless", *settings)
    assert refused.returncode == 2 and "there already" in refused.stderr
    # Cut off where kill -9 of the whole run could have cut it: the same, up to there.
    path.write_bytes(path.read_bytes()[:-400])
    shown: list[Any] = []
    with Recording(path, lambda: pytest.fail("nothing is sealed here")) as recording:
        half = replay(recording, lambda message: shown.append({"kind": message.kind, **said(message)}))
    assert half.differences == [] and "was cut off" in half.notices[0]
    assert shown and shown == [json.loads(line) for line in again.stdout.splitlines()[: len(shown)]]


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
def test_with_biometrics_it_is_sealed_and_outlives_kill_9_of_everything(config: Config) -> None:
    with Running(config, "demo", "--record", "--record-biometrics") as mien:
        folder = mien.config.storage.data_dir / FOLDER
        mien.fresh_results(20)
        [path] = folder.glob(f"*{SUFFIX}")
        wait_until(lambda: path.stat().st_size > 200_000, 60, "crops are written down")
        children = mien.processes("")
        os.kill(mien.process.pid, signal.SIGKILL)
        mien.process.wait(10)
        wait_until(lambda: not any(child.is_running() for child in children), 20, "all have ended")
        mien.process.returncode = 0  # it was asked for
    settings = ("--config", str(mien.path))
    again = launch("--replay", str(path), *settings)
    assert again.returncode == 0, again.stderr
    assert "was cut off" in again.stderr and "in 1 run: all as recorded" in again.stderr
    key = mien.config.storage.data_dir / "mien.key"
    key.rename(key.with_suffix(".away"))
    locked = launch("--replay", str(path), *settings)
    assert locked.returncode == 2 and "is encrypted" in locked.stderr
    assert "add --record" in launch("--record-biometrics", "--headless", *settings).stderr
