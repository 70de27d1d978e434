"""The loop of a worker: subscribe to your own id, say that you are ready, take a job, give a finding."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from common.clock import ticked
from common.messages import Message, MessageError, Ready, pack, unpack
from common.news import Complaint
from common.stage import Stage, WornOut
from common.transport import Socket, opened

READY_EVERY_S = 0.5  # while there is work: a conductor that begins anew hears of its workers so soon
IDLE_READY_EVERY_S = 1.0
IDLE_AFTER_S = 5.0
WEIGH_EVERY_S = 1.0
FAILURES = 5  # jobs that fail one after the other before a fresh process is asked for

J = TypeVar("J", bound=Message)


def job_topic(worker: str) -> bytes:
    """Return the topic under which a worker's jobs are published; closed by a slash, for topics match as prefixes."""
    return worker.encode() + b"/"


class Worker(Stage, Generic[J]):
    """A process of a pool: remembers nothing, takes arrays, runs a network, gives arrays back."""

    pool: ClassVar[Literal["detection", "identity", "expression"]]
    job_kind: ClassVar[type[Message]]

    def open(self) -> None:
        self._jobs: Socket | None = None
        self._findings: Socket | None = None
        self._last_job = -1
        self._said_ready = self._worked_at = 0.0
        self._complain = Complaint()
        self._weigh_at = 0.0
        self._failures = 0
        self.load()
        self._findings = opened("findings", self.config.endpoint("findings"), "push", linger_ms=200)
        self._jobs = opened("jobs", self.config.endpoint("jobs"), "sub")
        self._jobs.subscribe(job_topic(self.instance))
        self.poller.add(self._jobs)

    @abstractmethod
    def load(self) -> None:
        """Load the model. Raises StageError when that cannot be."""

    @abstractmethod
    def work(self, job: J, blobs: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        """Do a job; return the fields of the finding and its blobs.

        Raises:
            MessageError: the job's blobs are not what its map says.
        """

    @property
    @abstractmethod
    def finding_kind(self) -> type[Message]:
        """The class of this pool's findings."""

    def handle(self, ready: set[Socket]) -> None:
        assert self._jobs is not None
        parts = self._jobs.receive()
        if parts is not None:
            self._take(parts)  # one at a time: between two jobs the loop must see that it shall stop
        self._weigh()
        if self._is_ready_due():
            self._say_ready()

    def wait_ms(self) -> float:
        return 1e3 * (IDLE_READY_EVERY_S if self._idle() else READY_EVERY_S)

    def detail(self) -> dict[str, float | str]:
        from models import runtime  # only here: the conductor, too, imports this module, and needs no network

        return {"model_cpu_s": runtime.inference_cpu_s()}

    def close(self) -> None:
        for socket in (getattr(self, "_jobs", None), getattr(self, "_findings", None)):
            if socket is not None:
                socket.close()

    def _take(self, parts: list[memoryview]) -> None:
        self.meter.taken += 1
        began = time.perf_counter()
        try:
            if len(parts) < 2:
                raise MessageError(f"a job of {len(parts)} parts came")
            job: Any = unpack(self.job_kind, parts[1])
        except MessageError as error:
            self.meter.bad_messages += 1
            self._complain(self.log, "jobs", error)
            return
        self._last_job = job.job
        try:
            fields, blobs = self.work(job, parts[2:])
            self._failures = 0
        except MessageError as error:  # a picture that cannot be read, or is gone already: no fault of this process
            self._complain(self.log, "jobs", error)
            fields, blobs = {"error": str(error)[:1000]}, []
        except Exception as error:
            # Whatever a network or a library makes of one picture must not end the worker; the conductor is told.
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]
            self._failures += 1
            # Libraries complain by RuntimeError; where anything else was raised is a fault of ours, to be found.
            ours = self._failures == 1 and not isinstance(error, RuntimeError)
            self.log.error(
                "job %d (frame %d of %s) failed: %s",
                job.job,
                job.seq,
                job.camera,
                what,
                exc_info=error if ours else None,
            )
            fields, blobs = {"error": what}, []
        milliseconds = (time.perf_counter() - began) * 1e3
        self.meter.worked(milliseconds)
        self._give({"job": job.job, "work_ms": milliseconds, **fields}, blobs)

        if self._failures >= FAILURES:
            raise WornOut(f"{self._failures} jobs failed one after the other: a fresh process may do better")

    def _weigh(self) -> None:
        """Ask to be replaced when this process has grown beyond its budget: between two jobs, so that none is lost."""
        now = time.monotonic()
        if now < self._weigh_at:
            return
        self._weigh_at = now + WEIGH_EVERY_S
        own_mb, most_mb = self.meter.own_mb(), self.config.supervision.worker_memory_mb
        if own_mb > most_mb:
            raise WornOut(
                f"this process has grown to {own_mb:.0f} MB, its budget is {most_mb:g} MB "
                "(supervision.worker_memory_mb): it makes room for a fresh one"
            )

    def _give(self, fields: dict[str, Any], blobs: list[Any]) -> None:
        finding = self.finding_kind.model_validate({"from": self.instance, **fields})
        if self._send(finding, blobs, timeout_ms=500):
            self.meter.given += 1
        else:
            self.meter.dropped += 1
        self._said_ready = self._worked_at = time.monotonic()  # a finding asks for the next job, too

    def _idle(self) -> bool:
        return time.monotonic() - self._worked_at >= IDLE_AFTER_S

    def _is_ready_due(self) -> bool:
        if self._idle():
            return ticked(self._said_ready, IDLE_READY_EVERY_S)
        return time.monotonic() - self._said_ready >= READY_EVERY_S

    def _say_ready(self) -> None:
        self._said_ready = time.monotonic()
        self._send(Ready(sender=self.instance, pool=self.pool, last_job=self._last_job), [], timeout_ms=0)

    def _send(self, message: Message, blobs: list[Any], timeout_ms: int) -> bool:
        assert self._findings is not None
        # Without a conductor there is nobody to tell; the next one learns of this worker by its next "ready".
        return self._findings.send([message.kind.encode(), pack(message, blobs), *blobs], timeout_ms=timeout_ms)
