"""A running Mien with somebody known in view, and what can be done to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from common import people
from common.enrolment import PhotoReader
from common.messages import Face, Stats
from common.settings import Config
from common.store import Store
from tests.conftest import wait_until
from tests.people import frame_of, own_data_dir
from tests.running import Running

HOOKS = Path(__file__).parent / "hooks"
NAME = "Wanda"
RESUMES_S = 2.0  # results are there again so long after the restarted process is ready
RULE = {"name": "negative", "min_duration_s": 1.5, "leave_s": 60, "pause_s": 300, "escalate_after_s": None}
# Ids go on from the last conductor's, as they do for everybody.
DEFAULTS = {"alerts": {"rules": [RULE]}, "pipeline": {"first_track": None}}


def data_dir(config: Config) -> Path:
    """A data directory with the models in which one person is enrolled, as the demo shows her."""
    path = own_data_dir(config.run_dir / "data")
    if not (path / "mien.db").exists():
        with Store(path) as store:
            reader = PhotoReader(config)
            people.add(store, NAME, [reader.reference_of(frame_of("woman.mp4", 30), "clip")])
    return path


class Victim(Running):
    """A running Mien that bad things happen to.

    Args:
        faults: ``CHAOS_…`` variables for ``hooks/sitecustomize.py``: ``LEAK__IDENTITY="20"``.
    """

    def __init__(
        self,
        config: Config,
        *arguments: str,
        source: str = "demo",
        prefix: tuple[str, ...] = (),
        faults: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        **overrides: Any,
    ) -> None:
        hooks = {"PYTHONPATH": str(HOOKS)} | {f"CHAOS_{name}": value for name, value in (faults or {}).items()}
        self.environment = (hooks if faults else {}) | (environment or {})
        self.prefix = prefix
        data_dir(config)
        super().__init__(config, source, *arguments, **(DEFAULTS | overrides))

    def until(self, predicate: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """As ``Running.until``, with the patience that a busy machine needs."""
        return super().until(predicate, what, timeout_s * patience())

    def supervisor(self) -> Stats | None:
        """What the supervisor told last."""
        return next((stats for stats in self.stats.values() if stats.stage == "supervisor"), None)

    def told(self, child: str, what: str) -> float | str | None:
        """One of its figures of a child: ``state``, ``pid``, ``restarts``."""
        stats = self.supervisor()
        return None if stats is None else stats.detail.get(f"{child}.{what}")

    def children(self) -> list[str]:
        """The names of its children."""
        stats = self.until(self.supervisor, "the supervisor tells its figures")
        return [name.removesuffix(".pid") for name in stats.detail if name.endswith(".pid")]

    def pids(self) -> dict[str, int]:
        """The processes by name, as the supervisor told them last."""
        return {child: int(self.told(child, "pid") or 0) for child in self.children()}

    def face(self) -> Face | None:
        """The one face of the newest result, None where there is none."""
        return self.results[-1].faces[0] if self.results and self.results[-1].faces else None

    def until_known(self, timeout_s: float = 60.0) -> Face:
        """The face, as soon as it has a name and an expression of its own in a result that comes from now on."""
        self.read()
        have = len(self.results)

        def known() -> Face | None:
            face = self.face()
            new = len(self.results) > have and face is not None
            return face if new and face.identity.name == NAME and face.expression.label else None  # type: ignore[union-attr]

        face: Face = self.until(known, "the face has its name and expression", timeout_s)
        return face

    def hit(self, child: str, how: signal.Signals, *, timeout_s: float = 60.0) -> float:
        """Kill or stop a process; return how long results took to come again once another was ready, seconds."""
        before = self.pids()
        restarts = float(self.told(child, "restarts") or 0)
        os.kill(before[child], how)
        self.until(
            lambda: self.told(child, "state") == "running" and float(self.told(child, "restarts") or 0) > restarts,
            f"{child} runs again",
            timeout_s,
        )
        began = time.monotonic()
        self.fresh_results(3, 20)
        took_s = time.monotonic() - began
        after = self.pids()
        assert after.pop(child) != before.pop(child)
        assert after == before, f"others than {child} were replaced"
        return took_s

    def end_hard(self) -> None:
        """Leave nothing running, whatever has happened: its processes end when their parent is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._reader.close()

    def descriptors(self, stage: str) -> int:
        """How many descriptors a stage has open."""
        return sum(process.num_fds() for process in self.processes(stage))

    def until_said(self, text: str, timeout_s: float = 60.0) -> str:
        """The first line that holds this text."""

        def line() -> str | None:
            return next((line for line in self.said().splitlines() if text in line), None)

        found: str = self.until(line, f"it says {text!r}", timeout_s)
        return found

    def quiet(self) -> None:
        """No traceback was printed: those are for faults of the program."""
        assert "Traceback" not in self.said(), self.said()[-6000:]


def patience() -> float:
    """How much longer than promised anything may take: 1, or more where other programs want the processors, too."""
    return max(1.0, psutil.getloadavg()[0] / (os.cpu_count() or 1) / 2)  # two at a core are Mien's own


def processes_with(mark: str) -> list[psutil.Process]:
    """The processes that have a text in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(mark in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def none_left(run_dir: Path, timeout_s: float = 10.0) -> None:
    """Nothing of a run is there any more: processes, sockets, shared memory."""
    wait_until(lambda: not processes_with(str(run_dir / "config.json")), timeout_s, "all processes have ended")
