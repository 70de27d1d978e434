"""The engine's dealings with its actors, with a stand-in for Ray that answers at once: no cluster."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from common import config as configuration
from common.cluster.host import Report
from common.plan import plan

engine = pytest.importorskip("common.cluster.engine", reason="needs Ray")


class Handle:
    """An actor: its process runs until it is told to fail, and never ends by itself."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        self.failure: str | None = None
        self.crashed = False  # so often that it is not started again
        self.killed = self.asked_to_stop = False
        self.report = SimpleNamespace(remote=lambda: self)
        self.stop = SimpleNamespace(remote=self._stop)

    def answer(self) -> Any:
        state: Any = "failed" if self.failure or self.crashed else "running"
        return Report(host="a", turn=1, state=state, failure=self.failure, complete=False, lines=(), addresses={})

    def _stop(self, timeout_s: float) -> str:
        self.asked_to_stop = True
        return f"never {id(self)}"


class Ray:
    """What the engine asks of Ray."""

    exceptions = SimpleNamespace(RayError=ConnectionError, ActorDiedError=BrokenPipeError)
    util = SimpleNamespace(get_node_ip_address=lambda: "127.0.1.1")

    def __init__(self) -> None:
        self.handles: list[Handle] = []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 56)

    def cluster_resources(self) -> dict[str, float]:
        return {}

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._made))

    def _made(self, spec: Any = None, *_: Any) -> Handle:
        self.handles.append(Handle(spec))
        return self.handles[-1]

    def wait(self, asked: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = [one for one in asked if not isinstance(one, str)]
        if len(done) < num_returns:
            time.sleep(timeout)
        return done, []

    def get(self, asked: Handle) -> Any:
        return asked.answer()

    def kill(self, handle: Handle, *, no_restart: bool) -> None:
        handle.killed = True

    def pool(self) -> list[Handle]:
        """Return the workers that nobody has told to go."""
        return [h for h in self.handles if h.spec is not None and not (h.killed or h.asked_to_stop)]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(engine, "ray", made)
    monkeypatch.setattr(engine, "_ASK_EVERY_S", 0.0)
    return made


def started() -> tuple[Any, list[str]]:
    """Return an engine with a pool of two, and what it says."""
    config = configuration.load(
        overrides={"workers": {"detection": 2}, "cluster": {"detection": {"minimum": 1, "maximum": 3}}}, environment={}
    )
    said: list[str] = []
    made = engine.Engine(
        config, [spec for spec in plan(config, screen=False) if spec.stage == "detection"], said.append
    )
    made.start()
    made.turn(0.0)
    return made, said


def test_a_failed_worker_is_replaced_a_few_times_and_then_the_others_go_on(ray: Ray) -> None:
    running, said = started()
    for _ in range(3):
        bad = ray.pool()[-1]
        bad.failure = "no memory"
        running.turn(0.0)
        assert bad.asked_to_stop and len(ray.pool()) == 2 and bad not in ray.pool()
    ray.pool()[-1].failure = "no memory"
    for _ in range(3):
        running.turn(0.0)
    assert len(ray.pool()) == 1 and running.failure is None and "too many workers have failed" in "".join(said)
    ray.pool()[0].failure = "no memory"
    running.turn(0.0)
    assert running.failure is not None and "cannot run: no memory" in running.failure


def test_a_worker_that_crashed_too_often_is_replaced_and_never_ends_the_run(ray: Ray) -> None:
    running, _ = started()
    for _ in range(8):
        for handle in ray.pool():
            handle.crashed = True
        running.turn(0.0)
    assert running.failure is None and len(ray.handles) == 1 + 2 + 3  # the registry, the pool, its replacements


def test_who_leaves_a_pool_holds_up_nobody(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    running, _ = started()
    began = time.monotonic()
    running.pools["detection"].wanted = 1
    running.turn(0.0)
    assert time.monotonic() - began < 2 and len(ray.pool()) == 1
    (leaving,) = [handle for handle in ray.handles if handle.asked_to_stop]
    assert not leaving.killed  # its process has time to end
    monkeypatch.setattr(engine.time, "monotonic", lambda: began + 60)
    running.turn(0.0)
    assert leaving.killed
