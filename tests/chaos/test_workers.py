"""Workers that leak, networks that fail, a model that is damaged: one clear line each, and the rest goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.settings import Config
from models.expression import WEIGHTS
from tests.chaos.faults import Victim, data_dir


@pytest.mark.timeout(240)
def test_bad_workers_are_replaced_and_a_damaged_model_ends_in_failed_while_all_else_runs(
    config: Config, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(WEIGHTS.parent, weights)
    model = weights / WEIGHTS.name
    compiled = data_dir(config) / "compiled"
    own = shutil.copytree(compiled.resolve(), tmp_path / "compiled")
    compiled.unlink()
    own.rename(compiled)
    for blob in compiled.glob("*.blob"):  # of every network: the cache is damaged, the models are not
        blob.write_bytes(blob.read_bytes()[:-1000])
    faults = {"LEAK__IDENTITY": "200", "FAIL__DETECTION": "30,-1", "ONCE": str(tmp_path)}
    limits = {"restarts": 2, "worker_memory_mb": 500, "heartbeat_timeout_s": 20}
    with Victim(
        config, "--workers", "detection=1", faults=faults, supervision=limits, expression={"model": str(model)}
    ) as mien:
        mien.until_known(120)
        assert "is damaged; compiling again" in mien.said()
        conductor = mien.pids()["conductor"]
        # A worker that only grows.
        said = mien.until_said("this process has grown to")
        assert "its budget is 500 MB (supervision.worker_memory_mb)" in said
        mien.until_said("identity.1 asked to be replaced")
        # A network that fails for good: tried once more each time, then by a fresh process.
        mien.until_said("the network failed on the CPU (out of resources (a made-up fault)): trying once more")
        mien.until_said("5 jobs failed one after the other: a fresh process may do better")
        mien.until_said("detection.1 asked to be replaced")
        mien.until_known()
        # A model that was damaged since it was loaded.
        model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
        mien.processes("expression")[0].kill()
        failed = mien.until_said("expression.1 ended with exit code 2 and has FAILED")
        assert "Everything else keeps running" in failed
        assert f"the model file {model}" in failed and "fetch it again" in failed
        mien.until(lambda: mien.told("expression.1", "state") == "failed", "it is told")
        seen = mien.fresh_results(20)[-1]
        assert seen.faces[0].identity.name and seen.faces[0].expression.label is None  # never an old one
        assert mien.pids()["conductor"] == conductor
        mien.quiet()
