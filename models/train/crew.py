"""Several processes of one thread each that fit the same weights without waiting for each other (Recht et al. 2011).

Threads that share out every single convolution wait for the slowest of them thousands of times a second, which on a
busy machine costs most of the speed. Processes with batches of their own, on weights in shared memory, do not wait at
all. The price is that a run can no longer be repeated to the last bit.
"""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch

from models.train import config as run_config
from models.train.config import RunConfig
from models.train.fit import Run, teachers, training_set
from models.train.network import ExpressionNet

START_S = 300.0
LARGEST_LEAD = 8
"""Batches that a helper may be ahead of the first process; when that one is paused, the helpers soon are, too."""


class SharedCrew:
    """The helpers of a run, or a helper's own view of the crew when ``rank`` is above 0."""

    def __init__(self, processes: int, done: "list[Synchronized[int]]", rank: int = 0) -> None:
        self.processes = processes
        self.rank = rank
        self._done = done  # images, one number a process
        self._known = sum(count.value for count in done)
        self._helpers: list[multiprocessing.process.BaseProcess] = []

    def step(self, images: int) -> int:
        """Count images of this process; gives how many all processes have done since it last asked."""
        self._done[self.rank].value += images
        self._look_after_helpers()
        while self.rank > 0 and self._done[self.rank].value - self._done[0].value > LARGEST_LEAD * images:
            time.sleep(0.05)
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                raise SystemExit("the process that began this run has ended")
        now = sum(count.value for count in self._done)
        new, self._known = now - self._known, now
        return new

    def start(self, run: Run, data: Path, config_file: Path, taught_by: Sequence[Path] = ()) -> None:
        """Start the helpers on the weights of the run, and wait until they are ready."""
        run.network.share_memory()
        run.average.share_memory()
        context = torch.multiprocessing.get_context("spawn")
        ready = context.Barrier(self.processes)
        for rank in range(1, self.processes):
            state = {key: value for key, value in run.state().items() if key not in ("network", "average")}
            helper = context.Process(
                target=_help,
                args=(
                    rank,
                    ready,
                    self._done,
                    run.network,
                    run.average,
                    state,
                    data,
                    config_file,
                    run.schedule.deadline,
                    run.compiled,
                    taught_by,
                ),
                daemon=True,
            )
            helper.start()
            self._helpers.append(helper)
        ready.wait(START_S)

    def _look_after_helpers(self) -> None:
        for helper in self._helpers:
            if helper.exitcode not in (None, 0):  # those that have come to the end of the run are well
                raise RuntimeError(f"a helper ended with exit code {helper.exitcode}; its error is above")

    def end(self) -> None:
        """Wait for the helpers to end; RuntimeError when one of them failed."""
        for helper in self._helpers:
            # They notice the end of the run at their next step.
            helper.join(timeout=60)
            if helper.exitcode != 0:
                helper.kill()
                raise RuntimeError(f"a helper ended with exit code {helper.exitcode}; its error is above")


def new_crew(processes: int, run: Run, data: Path, config_file: Path, taught_by: Sequence[Path] = ()) -> SharedCrew:
    """Start that many processes less one, which fit the weights of the run together with this one."""
    context = multiprocessing.get_context("spawn")
    crew = SharedCrew(processes, [context.Value("q", 0) for _ in range(processes)])
    crew.start(run, data, config_file, taught_by)
    return crew


def _help(
    rank: int,
    ready: Barrier,
    done: "list[Synchronized[int]]",
    network: ExpressionNet,
    average: ExpressionNet,
    state: dict[str, object],
    data: Path,
    config_file: Path,
    deadline: float | None,
    compiled: bool,
    taught_by: Sequence[Path],
) -> None:
    torch.set_num_threads(1)
    config: RunConfig = run_config.read(config_file)
    run = Run(
        config,
        training_set(data, config.balance),
        deadline,
        compiled=compiled,
        teachers=teachers(taught_by, compiled=compiled),
    )
    run.restore({**state, "network": network.state_dict(), "average": average.state_dict()})
    run.adopt(network, average)
    seed = [config.seed, rank, run.steps]
    run.order = np.random.default_rng(seed)
    run.generator.manual_seed(int(run.order.integers(2**62)))
    torch.manual_seed(int(run.order.integers(2**62)))
    crew = SharedCrew(len(done), done, rank)
    ready.wait(START_S)
    while not run.schedule.done:
        run.one_epoch(crew=crew)
