"""Somebody who looks at the running pipeline for a benchmark: a viewer of its previews who also counts its jobs."""

from __future__ import annotations

import threading

from bench.pipeline import Running
from common.instance import instance_of
from common.messages import DetectionJob, IdentityJob, unpack
from common.transport import Socket, opened
from common.worker import job_topic


class Watcher:
    """Takes previews, as a viewer does, and sees what detection and identity are asked, in a thread.

    Args:
        pools: whose jobs it looks at.
        previews: without them it is no viewer, and no preview is made for it.

    Attributes:
        previews: pictures that came.
        identities: faces that identity was asked to look at.
        detections: pictures that detection was asked to look at.
        whole: … of them as a whole, and not only around faces that are followed.
    """

    def __init__(
        self, running: Running, *, pools: tuple[str, ...] = ("detection", "identity"), previews: bool = True
    ) -> None:
        config = running.config
        self._previews = opened("previews", config.endpoint("previews"), "sub")
        if previews:
            self._previews.subscribe(b"preview.")
        self._jobs: list[tuple[str, Socket]] = []
        for name, pid in running.pids().items():
            if (pool := name.partition(".")[0]) in pools:
                jobs = opened("jobs", config.endpoint("jobs"), "sub")
                jobs.subscribe(job_topic(instance_of(pool, pid)))
                self._jobs.append((pool, jobs))
        self.previews = self.identities = self.detections = self.whole = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for socket in (self._previews, *(jobs for _, jobs in self._jobs)):
            socket.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._previews.wait(50)
            while self._previews.receive() is not None:
                self.previews += 1
            for pool, jobs in self._jobs:
                while (parts := jobs.receive()) is not None:
                    if pool == "identity":
                        self.identities += len(unpack(IdentityJob, parts[1]).shapes)
                    else:
                        self.detections += 1
                        self.whole += unpack(DetectionJob, parts[1]).near is None
