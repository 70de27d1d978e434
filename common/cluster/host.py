"""What stands on a node for one process of Mien: an actor that starts it by exec, watches it and tells of it.

The stage is the process that it is on one machine, with the same lifeline: when the actor's process dies, however it
dies, the pipe closes and the stage ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from common.child import ChildSpec
from common.cluster.addresses import Addresses, bound_by, chosen, connected, loopback
from common.keys import SERVER_FILE, KeyRing
from common.run import RunError, have_sample_media
from common.rundir import RunDir, RunDirError
from common.settings import Config
from common.supervisor import Supervisor
from common.transport import TransportError, terminate

_ASK_EVERY_S: Final = 0.5
_ANSWER_S: Final = 5.0
_LINES: Final = 200  # kept until somebody asks for them
_MOST_PORTS: Final = 3  # tries, when a free port was taken before the stage could open it

State = Literal["waiting for addresses", "loading", "running", "waiting", "finished", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How it stands with one process.

    Attributes:
        host: the node's address.
        turn: which of the process's lives on the cluster this is.
        failure: why it cannot work, in words for people.
        complete: it has finished, and so has the run.
        lines: what it and its supervisor have said since the last report.
        addresses: of all channels, as far as they are known here.
    """

    host: str
    turn: int
    state: State
    failure: str | None
    complete: bool
    lines: tuple[str, ...]
    addresses: dict[str, str]


class Host:
    """Runs one process until told to stop.

    Args:
        spec: the process.
        config: the settings of the run, as JSON.
        expected: channels whose addresses it waits for before it starts.
        host: this node's address.
        begin, exchange: of the registry.
    """

    def __init__(
        self,
        spec: ChildSpec,
        config: str,
        expected: tuple[str, ...],
        *,
        host: str,
        begin: Callable[[], int],
        exchange: Callable[[int, Addresses], dict[str, str]],
    ) -> None:
        self._spec = spec
        self._config = Config.model_validate_json(config)
        self._expected = expected
        self._host = host
        self._exchange = exchange
        self._known: dict[str, str] = {}
        self._asked_at = 0.0
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._state: State = "waiting for addresses"
        self._failure: str | None = None
        self._complete = False
        self._stop = threading.Event()
        self._turn = begin()
        self._own = chosen(spec.stage, self._config, host)
        self._thread = threading.Thread(target=self._live, name=spec.name, daemon=True)
        self._thread.start()

    def report(self) -> Report:
        """Return how it stands, and what was said since the last time."""
        lines: list[str] = []
        while self._lines:
            lines.append(self._lines.popleft())
        return Report(
            host=self._host,
            turn=self._turn,
            state=self._state,
            failure=self._failure,
            complete=self._complete,
            lines=tuple(lines),
            addresses=dict(self._known),
        )

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the process; return whether it has ended within the time."""
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread ---

    def _live(self) -> None:
        try:
            _sweep()
            if not loopback(self._host) and (problem := keys_problem(self._spec.stage, self._config, self._host)):
                raise RunError(problem)
            if self._spec.stage == "capture":
                have_sample_media(self._config)
            ports = 1
            while not self._stop.is_set() and self._failure is None and not self._complete:
                self._ask()
                if any(channel not in self._known for channel in self._expected):
                    self._stop.wait(0.1)
                    continue
                problem = self._run_once()
                if problem is not None and self._own and ports < _MOST_PORTS:
                    ports += 1
                    self._own = chosen(self._spec.stage, self._config, self._host)
                else:
                    self._failure = problem
        except (RunError, RunDirError, TransportError, OSError, ValueError) as error:
            self._failure = str(error)
        finally:
            self._state = "failed" if self._failure else "finished" if self._complete else "stopped"
            _sweep()
            terminate()

    def _run_once(self) -> str | None:
        """Run the process with the addresses of now, until they change; return why it cannot work, if so."""
        used = dict(self._known)
        directory = _directory(f"{self._config.cluster.name}-{self._spec.name}")
        config = connected(self._config, used, run_dir=directory, shared_memory=False)
        try:
            with RunDir(config) as place:
                supervisor = Supervisor(config, [self._spec], config_file=place.config_file, say=self._lines.append)
                try:
                    supervisor.start()
                    while not self._stop.is_set() and supervisor.failure is None and not supervisor.complete:
                        supervisor.turn()
                        self._state = supervisor.children[0].state
                        self._ask()
                        if self._known != used:
                            self._lines.append(f"{self._spec.name}: addresses have changed, starting it anew")
                            break
                finally:
                    supervisor.stop()
                # What people have asked of a camera goes on when this process is only started anew.
                place.broke_off = not self._stop.is_set() and not supervisor.complete
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self._complete = supervisor.complete
        return supervisor.failure

    def _ask(self) -> None:
        """Tell the registry what is open here and learn the rest, now and then."""
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY_S:
            return
        self._asked_at = now
        self._known |= self._exchange(self._turn, self._own)


def keys_problem(stage: str, config: Config, host: str) -> str | None:
    """Return why the keys on this node do not do for a stage, with what to do; None when they do.

    Raises:
        KeysError: a key cannot be read.
    """
    ring = KeyRing(config.keys_dir)
    if bound_by(stage, config, host) and not ring.listens():
        return (
            f"{stage} listens for other machines, and the node {host} has no {SERVER_FILE} in {ring.folder}: 'python "
            f"launch.py keys make server' makes it where the command runs, and there {stage} runs unless "
            "cluster.places says otherwise; a node of another place needs a copy of it"
        )
    if ring.own() is None:
        return (
            f"the node {host} has no key in {ring.folder}: where the command runs, type 'python launch.py keys make "
            "NAME --role worker,camera', copy the file that it names, and type 'python launch.py keys import FILE' on "
            "the node"
        )
    return None


def of_ray(registry: Any, host: str) -> dict[str, Any]:
    """Return what connects a ``Host`` to a registry that is a Ray actor."""
    import ray

    def begin() -> int:
        turn: int = ray.get(registry.begin.remote(), timeout=60)
        return turn

    def exchange(turn: int, own: Addresses) -> dict[str, str]:
        try:
            known: dict[str, str] = ray.get(registry.exchange.remote(turn, own), timeout=_ANSWER_S)
        except (ray.exceptions.RayError, TimeoutError):
            return {}  # what is known already goes on being used; the next question comes soon
        return known

    return {"host": host, "begin": begin, "exchange": exchange}


def _directory(name: str) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"mien-cluster-{user}-{name}.{os.getpid()}"


def _sweep() -> None:
    """Remove what actors that were killed have left: run directories named after processes that are no more."""
    pattern = _directory("*").name.rpartition(".")[0] + ".*"
    for left in Path(tempfile.gettempdir()).glob(pattern):
        pid = left.name.rpartition(".")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
