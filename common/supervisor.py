"""Starts every stage as its own process, watches that each lives, starts it again when not, and ends them all.

A process that ends unasked, or gives no heartbeat, is started again after a growing delay; when that happens too often
it has failed, and everything else keeps running, while the failed one is tried again now and then. What is known is
published as ``stats.supervisor``, at once when it changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from common.child import Child, ChildSpec, Event, RestartPolicy, State, describe_exit
from common.instance import instance_of
from common.lifeline import WORN_OUT
from common.messages import Stats
from common.meter import Meter
from common.news import NewsWriter
from common.settings import Config

SETTLED_S, UNSETTLED_S = 0.5, 0.1  # between two turns while nothing is heard
ASKED_TO_STOP_S = 2.0  # for all together; what has not ended by then is killed
_KILLED_S = 1.0  # a killed process is gone at once, unless the system itself holds it (a dead network drive)
_START_AGAIN_S = 1.0  # where the system has no room for another process
_CANNOT_WORK = 2  # exit code, a stage's and the run's, for what a person repairs: configuration, port, missing file


class Supervisor:
    """Runs the stages of one machine. Belongs to one thread.

    Args:
        config: the checked configuration, saved in ``config_file`` for the children.
        specs: what to start, in this order.
        say: prints one line for people; also gets the lines that the children write to standard error. While it blocks,
            nobody is looked after.
        arguments: given to every child.

    Attributes:
        children: all processes, in the order of their start.
        failure: why the run cannot go on, in words for people; None while it can.
        complete: a stage that ends the run has finished.
    """

    def __init__(
        self,
        config: Config,
        specs: Sequence[ChildSpec],
        *,
        config_file: Path,
        say: Callable[[str], None],
        arguments: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.failure: str | None = None
        self.complete = False
        self._say = say
        self._events: SimpleQueue[Event] = SimpleQueue()
        data_dir, limits = config.storage.data_dir, config.supervision
        command_end = ("--config", str(config_file), *arguments)
        self.children = [Child(spec, command_end, data_dir, RestartPolicy(limits), self._events) for spec in specs]
        self._meter = Meter()
        self._writer = NewsWriter(config, instance_of("supervisor"))
        self._turned_at = time.monotonic()
        self._published: list[tuple[State, int | None, int]] = []  # of each child, when that was published last
        self._stopped = False

    def run(self, stop: threading.Event, *, duration_s: float | None = None) -> int:
        """Start all, keep them running until ``stop`` is set, the time is over or the work is done, and end all.

        Returns the exit code: 0, or 2 when a needed stage could not start (``failure`` says why).
        """
        ends_at = time.monotonic() + duration_s if duration_s is not None else float("inf")
        try:
            self.start()
            while not stop.is_set() and self.failure is None and not self.complete and time.monotonic() < ends_at:
                self.turn()
        finally:
            self.stop()
        return 0 if self.failure is None else _CANNOT_WORK

    def start(self) -> None:
        """Start every child."""
        for child in self.children:
            self._start(child)

    def turn(self, wait_s: float | None = None) -> None:
        """Hear what the children say, for up to ``wait_s``; start again what has ended or hangs; publish the state."""
        if wait_s is None:  # whoever ends is heard at once; it is for delays and silence that one has to look
            wait_s = SETTLED_S if all(child.state == "running" for child in self.children) else UNSETTLED_S
        self._hear(wait_s)
        now = time.monotonic()
        if now - self._turned_at > 1.0:
            # This process was suspended: the silence of the others was not theirs.
            for child in self.children:
                child.beat_at = now
        self._turned_at = now
        for child in self.children:
            self._look_after(child, now)
            if more := child.left_out - child.left_out_told:
                child.left_out_told += more
                self._tell(f"{more} lines of {child.spec.name} are left out: they came too fast to be shown")
        if self._meter.due() or self._now() != self._published:
            self._publish("running")

    def stop(self) -> None:
        """End every child: ask all, wait 2 s for all together, kill the rest. Stopping twice is allowed.

        Whoever has not begun is killed at once: still loading its libraries, it could not hear the request.
        """
        if self._stopped:
            return
        self._stopped = True
        self._publish("stopping")
        alive = [child for child in self.children if child.pid is not None]
        self._hear(0)
        for child in alive:
            if child.has_begun:
                child.ask_to_stop()
            else:
                child.kill()
        deadline = time.monotonic() + ASKED_TO_STOP_S
        killed = False
        while alive and time.monotonic() < deadline + _KILLED_S:
            self._hear(0.02)
            for child in list(alive):
                code = child.exit_code()
                if code is not None:
                    child.forget_process()
                    child.state = "finished" if child.said_finished else "stopped"
                    alive.remove(child)
            if not killed and time.monotonic() >= deadline:
                killed = True
                for child in alive:
                    self._tell(f"{child.spec.name} did not end when asked: killed")
                    child.kill()
        for child in alive:
            self._tell(f"{child.spec.name} (process {child.pid}) cannot be ended: the system holds it")
        self._hear(0)
        self._writer.close()

    # --- one child ---

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # no process was there that could have failed: nothing of its restarts is spent
            if child.state == "failed":
                self._stays_failed(child, f"cannot be started ({error})")
            else:
                self._not_yet(child, "be started", str(error), _START_AGAIN_S)
            return
        if child.state == "failed":  # that it is tried was said when it failed; what comes of it will be
            child.restarts += 1
            return
        again = f", restart {child.restarts}" if child.restarts else ""
        self._tell(f"started {child.spec.name} (process {child.pid}{again})")

    def _look_after(self, child: Child, now: float) -> None:
        if child.state == "waiting" or (child.state == "failed" and child.pid is None):
            if now >= child.start_at:
                self._start(child)
            return
        if child.pid is None:
            return
        code = child.exit_code()
        if code is not None:
            child.forget_process()
            self._ended(child, code, now)
        elif child.killed_for is None:
            limits = self.config.supervision
            allowed_s = limits.heartbeat_timeout_s if child.state == "running" else limits.start_timeout_s
            silent_s = now - (child.beat_at if child.state == "running" else child.started_at)
            if silent_s > allowed_s:
                doing = "gave no sign of life" if child.state == "running" else "was not ready"
                child.kill(f"{doing} for {silent_s:.1f} s and was killed")

    def _ended(self, child: Child, code: int, now: float) -> None:
        if child.said_finished:
            child.state = "finished"
            self._tell(f"{child.spec.name} has finished")
            if child.spec.ends_run and all(other.state in ("finished", "failed") for other in self._siblings(child)):
                self.complete = True
        elif code == WORN_OUT and child.ready_at is None:
            child.restarts += 1
            reason = child.last_error() or "it gave no reason"
            self._not_yet(child, "work", reason, self.config.supervision.longest_delay_s)
        elif child.state == "failed":
            self._stays_failed(child, child.killed_for or describe_exit(code))
        elif code == _CANNOT_WORK and not child.was_ready:  # later, it is a failure like any: the run goes on
            self._cannot_work(child)
        else:
            self._restart_later(child, child.killed_for or describe_exit(code), now)

    def _cannot_work(self, child: Child) -> None:
        """No restart repairs a wrong setting or a port in use; the stage has logged what is wrong."""
        child.state = "failed"
        reason = child.last_error() or "it gave no reason"
        all_failed = all(other.state == "failed" for other in self._siblings(child))
        if child.spec.needed == "yes" or (child.spec.needed == "one" and all_failed):
            self.failure = f"{child.spec.name} cannot start: {reason}"
        else:
            self._tell(f"{child.spec.name} FAILED: {reason}. {self._once_more(child)} Everything else keeps running.")

    def _not_yet(self, child: Child, do: str, reason: str, delay_s: float) -> None:
        """What it needs is not to be had for now, as a store that is locked: tried for as long as that lasts."""
        child.state = "waiting"
        child.start_at = time.monotonic() + delay_s
        if child.waits_for != reason:
            child.waits_for = reason
            self._tell(f"{child.spec.name} cannot {do} yet: {reason}; it is tried again until it can")

    def _restart_later(self, child: Child, what: str, now: float) -> None:
        delay_s = child.policy.next_delay_s(now, child.lived_s)
        if delay_s is None:
            child.state = "failed"
            limits = self.config.supervision
            self._tell(
                f"{child.spec.name} {what} and has FAILED: {limits.restarts} restarts within {limits.window_s:g} s, or "
                f"without a minute of work in between, are all it gets. {self._once_more(child)} "
                f"Everything else keeps running.{_last_words(child)}"
            )
            return
        child.state = "waiting"
        child.start_at = now + delay_s
        child.restarts += 1
        self._tell(f"{child.spec.name} {what}: starting it again in {delay_s:.1f} s")

    def _stays_failed(self, child: Child, what: str) -> None:
        self._tell(
            f"{child.spec.name} was tried again, {what} and stays FAILED. {self._once_more(child)}{_last_words(child)}"
        )

    def _once_more(self, child: Child) -> str:
        """Set when a failed child is tried again, and return that in words."""
        pause_s = self.config.supervision.failed_retry_s
        child.start_at = time.monotonic() + pause_s if pause_s else float("inf")
        return f"It is tried again in {pause_s:g} s." if pause_s else "It is not tried again."

    def _siblings(self, child: Child) -> list[Child]:
        return [other for other in self.children if other.spec.stage == child.spec.stage]

    def _tell(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')} mien {text}")

    # --- all of them ---

    def _hear(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline + 0.2:  # a flood of lines must not keep us from looking after the children
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return
            was = event.child.state
            event.child.hear(event)
            if event.kind == "line":
                self._say(event.text)
            elif event.kind == "closed":
                return  # look at once what became of it
            elif event.child.state != was:
                if event.child.restarts:
                    self._tell(f"{event.child.spec.name} runs again (process {event.child.pid})")
                return  # publish it at once

    def _now(self) -> list[tuple[State, int | None, int]]:
        return [(child.state, child.pid, child.restarts) for child in self.children]

    def _publish(self, state: str) -> None:
        now = time.monotonic()
        self._published = self._now()
        detail: dict[str, float | str] = {}
        for child in self.children:
            name = child.spec.name
            detail[f"{name}.state"] = child.state
            detail[f"{name}.pid"] = float(child.pid or 0)
            detail[f"{name}.restarts"] = float(child.restarts)
            detail[f"{name}.uptime_s"] = now - child.started_at if child.pid else 0.0
        self._writer.publish(
            Stats.model_validate(
                {
                    "from": self._writer.sender,
                    "stage": "supervisor",
                    "state": state,
                    "detail": detail,
                    **self._meter.figures(),
                }
            ),
            "supervisor",
        )


def _last_words(child: Child) -> str:
    reason = child.last_error()
    return f" Its last words: {reason}" if reason else ""
