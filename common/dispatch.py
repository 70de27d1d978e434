"""Who gets which job. Pure: no sockets, no clock of its own.

Work is pulled: a job leaves only for a worker that has asked for one. Among cameras the one that was served longest ago
comes first; of one camera's waiting frames only the newest is kept, unless nothing may be dropped.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

MOST_STRANGERS = 64  # workers remembered that have spoken but cannot be reached yet
ANSWERS = 5  # so many of a worker's last answers say how long it takes …
PATIENCE = 2.0  # … and it is waited for so many times as long as for the slowest of them …
LONGEST_S = 20.0  # … but no longer than this


@dataclass(slots=True, kw_only=True, eq=False)
class Job(Generic[P]):
    """A piece of work for one pool.

    Attributes:
        id: never used twice.
        keep: must be done: given again when its worker is lost. Otherwise a lost job is only reported.
        newest_only: replaces the camera's older waiting job of this pool.
        deadline: monotonic seconds after which a job still waiting is of no use.
        payload: what the owner needs to send it and to make use of the answer.
        tries: how often it was given to a worker; one that was only slow does not count where the job is kept.
    """

    id: int
    pool: str
    camera: str
    payload: P
    keep: bool = False
    newest_only: bool = False
    deadline: float = math.inf
    tries: int = 0
    given_at: float = -math.inf


@dataclass(slots=True)
class _Worker(Generic[P]):
    pool: str | None = None
    subscribed: bool = False
    asking: bool = False
    jobs: dict[int, Job[P]] = field(default_factory=dict)
    late: Job[P] | None = None  # the last job that it took too long over: it may answer yet
    given: int = -1  # the job that it was given last, and when
    given_at: float = -math.inf
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=ANSWERS))


class Dispatcher(Generic[P]):
    """Matches waiting jobs with asking workers.

    Args:
        timeout_s: a job unanswered this long counts as lost, and its worker gets nothing more until it speaks again.
            A worker whose answers take long is given longer.
        most_tries: a kept job that lost this many workers is given up: it may be what kills them.
    """

    def __init__(self, *, timeout_s: float, most_tries: int = 3) -> None:
        self._timeout_s = timeout_s
        self._most_tries = most_tries
        self._workers: dict[str, _Worker[P]] = {}
        self._waiting: dict[str, dict[str, deque[Job[P]]]] = {}  # pool → camera → jobs
        self._served: dict[tuple[str, str], float] = {}  # (pool, camera) → when it last got a worker

    # --- workers ---

    def subscribed(self, worker: str) -> None:
        """A worker's subscription arrived: jobs published under its id will reach it."""
        self._workers.setdefault(worker, _Worker()).subscribed = True

    def gone(self, worker: str) -> list[Job[P]]:
        """A worker's subscription ended. Returns the jobs lost with it; kept ones wait again, before all others."""
        state = self._workers.pop(worker, None)
        if state is None:
            return []
        if state.late is not None:
            state.late.tries += 1  # it was not only slow
        return self._lose(list(state.jobs.values()))

    def ready(self, worker: str, pool: str, last_job: int, now: float) -> list[Job[P]]:
        """A worker says that it waits, and which job it received last. Returns jobs that never reached it."""
        state = self._workers.get(worker)
        if state is None:
            self._make_room()
            state = self._workers[worker] = _Worker()
        state.pool = pool
        if last_job > state.given:
            last_job = -1  # of a conductor before this one, whose numbers say nothing of the jobs given here
        # A job younger than this may simply have crossed the worker's word on its way.
        lost = [job for job in state.jobs.values() if job.id > last_job and now - job.given_at > 0.5]
        for job in lost:
            del state.jobs[job.id]
        if not state.jobs:
            state.asking = True
        return self._lose(lost)

    def workers(self, pool: str) -> int:
        """Return how many workers of a pool are connected."""
        return sum(state.pool == pool and state.subscribed for state in self._workers.values())

    # --- jobs ---

    def put(self, job: Job[P]) -> list[Job[P]]:
        """Let a job wait for a worker. Returns the waiting jobs that it displaces."""
        queue = self._queue(job)
        displaced: list[Job[P]] = []
        if job.newest_only:
            displaced = [waiting for waiting in queue if not waiting.keep]
            for waiting in displaced:
                queue.remove(waiting)
        queue.append(job)
        return displaced

    def assign(self, now: float) -> list[tuple[str, Job[P]]]:
        """Give waiting jobs to asking workers; returns (worker, job) pairs that are to be sent now."""
        given: list[tuple[str, Job[P]]] = []
        for name, state in self._workers.items():
            if not (state.asking and state.subscribed and state.pool):
                continue
            job = self._next(state.pool, now)
            if job is None:
                continue
            state.asking = False
            state.jobs[job.id] = job
            state.given, state.given_at = job.id, now
            job.given_at = now
            job.tries += 1
            given.append((name, job))
        return given

    def done(self, worker: str, job_id: int, now: float = -math.inf) -> Job[P] | None:
        """A worker answered, and so asks for the next. Returns the job, or None if it is no longer wanted from it.

        An answer that comes after its time-out is still one: a kept job is done, unless another worker was quicker. One
        that was reported lost is returned, too: whether it is of any use then, its owner knows.
        """
        state = self._workers.get(worker)
        if state is None:
            return None
        state.asking = True
        if job_id == state.given:
            state.took_s.append(now - state.given_at)
        job, late = state.jobs.pop(job_id, None), state.late
        if late is not None and late.id == job_id:
            state.late = None
            if job is None and (not late.keep or self._take_back(late)):
                late.tries += late.keep  # should its answer be of no use, that counts
                return late
        elif late is not None and job_id == state.given:
            state.late = None  # it does one after the other: what it was late with is not to come any more
        return job

    def again(self, job: Job[P]) -> list[Job[P]]:
        """A job's answer is of no use: a kept one waits again, before all others. Returns it when it is given up."""
        return self._lose([job])

    def withdraw(self, job_id: int) -> Job[P] | None:
        """Wait for a worker's answer no more. Returns the job; its worker gets nothing until it speaks again."""
        for state in self._workers.values():
            if (job := state.jobs.pop(job_id, None)) is not None:
                return job
        return None

    def forget(self, camera: str) -> list[Job[P]]:
        """A camera has begun anew: what waits for it is of no use, and answers still to come are ignored. Returns what
        will have no answer.
        """
        forgotten: list[Job[P]] = []
        for cameras in self._waiting.values():
            forgotten += cameras.pop(camera, ())
        for state in self._workers.values():
            for job_id in [job.id for job in state.jobs.values() if job.camera == camera]:
                forgotten.append(state.jobs.pop(job_id))
            if state.late is not None and state.late.camera == camera:
                state.late = None
        return forgotten

    def sweep(self, now: float) -> list[Job[P]]:
        """Return jobs that are lost: past their deadline while waiting, or unanswered for too long."""
        lost: list[Job[P]] = []
        for cameras in self._waiting.values():
            for queue in cameras.values():
                while queue and queue[0].deadline < now:
                    lost.append(queue.popleft())
        for state in self._workers.values():
            slowest_s = max(state.took_s, default=0.0)
            timeout_s = max(self._timeout_s, min(PATIENCE * slowest_s, LONGEST_S))
            late = [job for job in state.jobs.values() if now - job.given_at > timeout_s]
            for job in late:
                state.late = state.jobs.pop(job.id)
                # Whether a worker has died its subscription says: what it is only slow at may not be given up for that.
                job.tries -= job.keep
            lost += self._lose(late)
        return lost

    def waiting(self, pool: str) -> int:
        """Return how many jobs wait for a worker of this pool."""
        return sum(len(queue) for queue in self._waiting.get(pool, {}).values())

    # --- inside ---

    def _make_room(self) -> None:
        """Forget who only claimed to be a worker: its subscription never came."""
        strangers = [name for name, state in self._workers.items() if not state.subscribed]
        for name in strangers[: max(0, len(strangers) - MOST_STRANGERS + 1)]:
            del self._workers[name]

    def _queue(self, job: Job[P]) -> deque[Job[P]]:
        return self._waiting.setdefault(job.pool, {}).setdefault(job.camera, deque())

    def _next(self, pool: str, now: float) -> Job[P] | None:
        cameras = [camera for camera, queue in self._waiting.get(pool, {}).items() if queue]
        if not cameras:
            return None
        camera = min(cameras, key=lambda name: self._served.get((pool, name), -math.inf))
        self._served[pool, camera] = now
        return self._waiting[pool][camera].popleft()

    def _take_back(self, job: Job[P]) -> bool:
        """Give a kept job to nobody any more; return False if it is settled already."""
        if job in (queue := self._queue(job)):
            queue.remove(job)
            return True
        return any(state.jobs.pop(job.id, None) for state in self._workers.values())

    def _lose(self, jobs: list[Job[P]]) -> list[Job[P]]:
        lost = []
        for job in sorted(jobs, key=lambda job: job.id, reverse=True):
            if job.keep and job.tries < self._most_tries:
                self._queue(job).appendleft(job)
            else:
                lost.append(job)
        return lost
