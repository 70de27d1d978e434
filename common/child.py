"""One stage as a process: started by exec, heard through its pipes, ended with everything it started itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Literal

from common.encryption import KEY_VARIABLE
from common.lifeline import SUPERVISED, WORN_OUT
from common.settings import SupervisionConfig

State = Literal["loading", "running", "waiting", "finished", "failed", "stopped"]
Needed = Literal["yes", "one", "no"]

ROOT = Path(__file__).resolve().parents[1]
GOOD_AFTER_S = 60.0  # a process that worked for so long starts again as if it had not failed before
MOST_LINES = 1000  # of one child that wait to be shown; what is written faster than that is left out, and counted
_FIRST_DELAY_S = 0.2
_LAST_WORDS = 30  # lines of standard error that are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to start.

    Attributes:
        name: for people, unique in a run: ``bus``, ``detection.2``, ``capture.cam0``.
        stage: row of the stage table.
        module: run with ``python -m``.
        arguments: of the module, besides those that all children get.
        ends_run: the run is over when this and all others of its stage say that they have finished.
        needed: whether the run is over when this one finds at its first start that it cannot work: ``yes``, ``no``,
            or ``one`` of its stage must.
    """

    name: str
    stage: str
    module: str
    arguments: tuple[str, ...] = ()
    ends_run: bool = False
    needed: Needed = "yes"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a child said: a word of its heartbeat, a line for people, or that one of these pipes closed."""

    child: Child
    generation: int
    kind: Literal["word", "line", "closed"]
    text: str = ""


class RestartPolicy:
    """Decides whether and when a process that failed is started again: growing delays within a budget.

    The budget is for the window, and for as long as the process does not live well: one that can never work for a
    minute has failed, however slowly it does so.
    """

    def __init__(self, limits: SupervisionConfig) -> None:
        self._limits = limits
        self._restarts: deque[float] = deque()
        self._delay_s = _FIRST_DELAY_S

    def next_delay_s(self, now: float, lived_s: float) -> float | None:
        """Return how long to wait before the next start, None when the budget is spent. Counts as a restart."""
        if lived_s >= GOOD_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
            while self._restarts and now - self._restarts[0] > self._limits.window_s:
                self._restarts.popleft()
        if len(self._restarts) >= self._limits.restarts:
            return None
        delay_s = min(self._delay_s, self._limits.longest_delay_s)
        self._delay_s *= 2
        self._restarts.append(now)
        return delay_s


class Child:
    """A process and what is known of it. Used by one thread; what the process says arrives in ``events``.

    Attributes:
        state: ``loading``, ``running``, ``waiting`` (for its restart), ``finished``, ``stopped`` or ``failed``, which
            lasts until it runs again.
        has_begun: this process has said something: before that it has opened nothing, and hears no request.
        ready_at: when this process was ready, monotonic seconds; None: not yet.
        was_ready: it has been ready in this run, perhaps before a restart.
        said_finished: the word has come: its exit is no failure.
        beat_at: when it last showed a sign of life, monotonic seconds.
        start_at: when a child that waits, or has failed, is to be started.
        killed_for: why the supervisor killed it.
        waits_for: what it cannot work without and cannot have for now, as it was said to people; None: nothing.
        left_out: lines that it wrote faster than they were heard; of these, ``left_out_told`` were told to people.
    """

    def __init__(
        self,
        spec: ChildSpec,
        arguments: Sequence[str],
        data_dir: Path,
        policy: RestartPolicy,
        events: SimpleQueue[Event],
    ) -> None:
        self.spec = spec
        self.policy = policy
        self.state: State = "stopped"
        self.has_begun = False
        self.ready_at: float | None = None
        self.was_ready = False
        self.said_finished = False
        self.restarts = 0
        self.generation = 0
        self.started_at = 0.0
        self.beat_at = 0.0
        self.start_at = 0.0
        self.killed_for: str | None = None
        self.waits_for: str | None = None
        self.left_out = self.left_out_told = 0
        self._room = threading.Semaphore(MOST_LINES)
        self._arguments = tuple(arguments)
        self._data_dir = data_dir
        self._events = events
        self._process: subprocess.Popen[bytes] | None = None
        self._closed: set[str] = set()  # pipes
        self._exited_at: float | None = None
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def lived_s(self) -> float:
        """For how long this process has worked: from when it was ready to its last sign of life."""
        return 0.0 if self.ready_at is None else self.beat_at - self.ready_at

    def start(self) -> None:
        """Start the process. Raises OSError when the system cannot: no memory, thread or descriptor is left."""
        self.generation += 1
        if self.state != "failed":
            self.state = "loading"
        self.started_at = self.beat_at = time.monotonic()
        self.killed_for = self._exited_at = self.ready_at = None
        self._closed.clear()
        self.has_begun = False
        command = [sys.executable, "-m", self.spec.module, *self._arguments, *self.spec.arguments]
        # A session (on Windows a group) of its own: Ctrl-C in the terminal reaches the supervisor only.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self._data_dir) | {SUPERVISED: "1"},
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._process = process
        assert process.stdout is not None and process.stderr is not None
        for stream, kind in ((process.stdout, "word"), (process.stderr, "line")):
            listener = threading.Thread(target=self._listen, args=(stream, kind, self.generation), daemon=True)
            try:
                listener.start()
            except RuntimeError as error:  # of a process that nobody hears nothing would be known
                process.kill()
                process.wait()
                process.stderr.close()
                if kind == "word":
                    process.stdout.close()
                self.forget_process()
                raise OSError(str(error)) from error

    def hear(self, event: Event) -> None:
        """Take note of what the process said."""
        if event.kind == "line":
            self._room.release()
        if event.generation != self.generation:
            return
        if event.kind == "closed":
            self._closed.add(event.text)
        elif event.kind == "line":
            self._last_words.append(event.text)
        else:
            # Only words: a thread may go on complaining when the loop hangs.
            self.beat_at = time.monotonic()
            self.has_begun = True
            if event.text == "ready":
                self.state, self.ready_at, self.was_ready, self.waits_for = "running", self.beat_at, True, None
            elif event.text == "finished":
                self.said_finished = True

    def ask_to_stop(self) -> None:
        """Write ``stop`` to the lifeline."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it is ending by itself: its lifeline has no reader any more
                self._process.stdin.write(b"stop\n")
                self._process.stdin.flush()

    def kill(self, reason: str | None = None) -> None:
        """End the process and whatever it started, at once; ``exit_code`` tells when it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        self.killed_for = reason
        if os.name != "posix":
            self._process.kill()
            return
        self._kill_group()

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended and all that it said was heard; None before."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        if self._exited_at is None:
            self._exited_at = time.monotonic()
            self._kill_group()  # what it had started and left behind
        # What it said last may still be in a pipe. One that stays open longer was handed to somebody else.
        if len(self._closed) < 2 and time.monotonic() - self._exited_at < 1.0:
            return None
        return code

    def forget_process(self) -> None:
        """Close what is left of an ended process."""
        if self._process is not None:
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):  # flushes what nobody will read
                    self._process.stdin.close()
            self._process = None

    def last_error(self) -> str:
        """Return the last error that the process logged, without time and name; "" if there was none."""
        lines = list(self._last_words)
        for index in range(len(lines) - 1, -1, -1):
            _, mark, text = lines[index].partition(" ERROR ")
            if mark:
                return "\n".join([text, *lines[index + 1 :]])
        return lines[-1] if lines else ""

    def _listen(self, stream: IO[bytes], kind: Literal["word", "line"], generation: int) -> None:
        with stream:
            while line := stream.readline(4096):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if kind == "word" and text == "beat":  # nothing to decide: it need not wake the supervisor
                    if generation == self.generation:
                        self.beat_at = time.monotonic()
                    continue
                if kind == "line" and not self._room.acquire(blocking=False):
                    self.left_out += 1
                    continue
                self._events.put(Event(self, generation, kind, text))
        self._events.put(Event(self, generation, "closed", kind))

    def _kill_group(self) -> None:
        if os.name == "posix" and self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of the group is left
                os.killpg(self._process.pid, signal.SIGKILL)


def environment(data_dir: Path | None) -> dict[str, str]:
    """Return the environment of a child process: this project's packages first, settings from the file alone.

    The saved configuration has settled what the variables ``MIEN_…`` said, and the command line may have overruled
    them: a child that read them again would disagree.
    """
    # One arena of glibc's allocator for every thread of every process would be 30 MB that nobody uses.
    arenas = {"MALLOC_ARENA_MAX": "2"}
    kept = arenas | {
        name: value for name, value in os.environ.items() if not name.startswith("MIEN_") or name == KEY_VARIABLE
    }
    path = os.pathsep.join(part for part in (str(ROOT), kept.get("PYTHONPATH")) if part)
    # Without the safe path, ``python -m`` looks into the current directory first, where anybody's ``common`` may lie.
    kept |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    # Small products of matrices are slower on several threads, most of all where every core has its own work.
    kept = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1") | kept
    return kept if data_dir is None else kept | {"MIEN_DATA_DIR": str(data_dir)}


def describe_exit(code: int) -> str:
    """Return in words how a process ended."""
    if code == WORN_OUT:
        return "asked to be replaced"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
