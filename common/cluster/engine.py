"""Mien on a Ray cluster: an actor for each process, pools that follow the work, everything gone at the end.

Ray places, and brings actors back on other nodes when theirs dies. What must be decided is in ``placement`` and
``scaling``; the data never pass through Ray.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.child import ChildSpec
from common.cluster.addresses import bound_by, loopback
from common.cluster.backlog import Backlog
from common.cluster.host import Host, Report, of_ray
from common.cluster.placement import Needs, Placed, leaver, needs
from common.cluster.registry import Registry
from common.cluster.scaling import Replacements, Scaling
from common.cluster.settings import PoolConfig
from common.run import RunError
from common.settings import POOLS, Config

ray = importlib.import_module("ray")  # half typed: what it leaves untyped would count as ours
log = logging.getLogger(__name__)

REGISTRY: Final = "registry"
_NO_ROOM_S: Final = 20.0  # a worker that has no node after this is taken back …
_ASK_AGAIN_S: Final = 60.0  # … and asked for again after this
_ASK_EVERY_S: Final = 0.5
_STOPPED_S: Final = 8.0
_REPLACED: Final = 3  # failed workers of a pool …
_REPLACED_IN_S: Final = 600.0  # … within this time; then those that are left go on, with one attempt a minute


class HostActor(Host):
    """A ``Host`` as Ray runs it."""

    def __init__(self, spec: ChildSpec, config: str, expected: tuple[str, ...]) -> None:
        if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            raise RunError("this node of the cluster asks for no token: start Ray with RAY_AUTH_MODE=token")
        # By its name: a handle among the arguments would keep Ray from starting this actor again elsewhere.
        registry = ray.get_actor(REGISTRY)
        super().__init__(spec, config, expected, **of_ray(registry, ray.util.get_node_ip_address()))


@dataclass(slots=True, eq=False)
class Actor:
    """A process on the cluster as the engine knows it.

    Attributes:
        report: the last one; None before the first.
        asked, ask_at: the question that is out; when the next one is due.
        lost_at: since when it does not answer, because Ray is bringing it back.
        failed: it cannot work, and does not come back by itself.
    """

    spec: ChildSpec
    handle: Any
    placed_at: float
    asked: Any = None
    ask_at: float = 0.0
    report: Report | None = None
    lost_at: float | None = None
    said: set[str] = field(default_factory=set)
    failed: bool = False

    @property
    def number(self) -> int:
        last = self.spec.name.rpartition(".")[2]
        return int(last) if last.isdecimal() else 0


@dataclass(slots=True, eq=False)
class Leaving:
    """An actor that goes: killed when its process has ended (``asked`` is answered), or at this time."""

    actor: Actor
    asked: Any
    kill_at: float


class Engine:
    """Places the processes of a run and keeps them there. Belongs to one thread; Ray is connected.

    Args:
        config: of the run.
        specs: the processes; of the pools, those that they begin with.
        say: prints a line for people.

    Attributes:
        failure: why the run cannot go on.
        complete: a stage that ends the run has finished.
        addresses: of all channels, as far as they are known.
        pools: how many workers each pool ought to have.
    """

    def __init__(self, config: Config, specs: Sequence[ChildSpec], say: Callable[[str], None]) -> None:
        self.failure: str | None = None
        self.complete = False
        self.addresses: dict[str, str] = {}
        self._config = config
        self._text = config.model_dump_json()
        self._say = say
        self._here = ray.get_runtime_context().get_node_id()
        self._gpus = float(ray.cluster_resources().get("GPU", 0.0))
        host = ray.util.get_node_ip_address()
        self._keyed = not loopback(host)
        self.expected = tuple(
            channel for stage in {s.stage for s in specs} for channel in bound_by(stage, config, host)
        )
        self._actors: list[Actor] = []
        self._leaving: list[Leaving] = []
        self._hosts = ray.remote(HostActor)  # once: its code goes to the cluster with it
        self._registry: Any = None
        self.pools = {
            pool: Scaling(_pool(config, pool), config.cluster.scaling, getattr(config.workers, pool))
            for pool in POOLS
            if any(spec.stage == pool for spec in specs)
        }
        self._replacements = {pool: Replacements(_REPLACED, _REPLACED_IN_S) for pool in self.pools}
        self._next_room = dict.fromkeys(self.pools, 0.0)
        self._fixed = [spec for spec in specs if spec.stage not in POOLS]
        self._patterns = {spec.stage: spec for spec in specs if spec.stage in POOLS}

    @property
    def connected(self) -> bool:
        """Whether all addresses are known."""
        return all(channel in self.addresses for channel in self.expected)

    def start(self) -> None:
        """Place everything. Raises RunError: another run of this name is on the cluster."""
        name = self._config.cluster.name
        try:
            self._registry = (
                ray.remote(Registry)
                .options(name=REGISTRY, num_cpus=0, max_restarts=-1, scheduling_strategy=self._strategy(here=True))
                .remote()
            )
        except ValueError as error:
            raise RunError(
                f"another Mien runs on this cluster under the name {name!r}: end it, or give this one another "
                "(cluster.name)"
            ) from error
        for spec in self._fixed:
            self._place(spec)
        self._fill(time.monotonic())

    def turn(self, wait_s: float = 0.1) -> None:
        """Hear the actors, for up to ``wait_s``, and let the pools follow what is wanted of them."""
        now = time.monotonic()
        for actor in self._actors:
            if actor.asked is None and now >= actor.ask_at:
                actor.asked, actor.ask_at = actor.handle.report.remote(), now + _ASK_EVERY_S
        asked = [actor.asked for actor in self._actors if actor.asked is not None]
        done, _ = ray.wait(asked, num_returns=len(asked), timeout=wait_s) if asked else ([], [])
        time.sleep(max(0.0, now + wait_s - time.monotonic()))  # they answer at once; twice a second is enough
        answered = set(done)
        now = time.monotonic()
        for actor in [actor for actor in self._actors if actor.asked in answered]:
            self._hear(actor, now)
        self._fill(now)
        self._see_off(now)

    def scale(self, backlog: Backlog, now: float) -> None:
        """Let the pools follow what is measured; ``turn`` then places and takes away."""
        for pool, scaling in self.pools.items():
            demand, before = backlog.demand(pool, now), scaling.wanted
            if demand is not None and scaling.look(demand, now) != before:
                self._tell(f"{pool}: {scaling.wanted} workers instead of {before} ({scaling.reason})")

    def stop(self) -> None:
        """End every process, then its actor."""
        asked = [actor.handle.stop.remote(_STOPPED_S) for actor in self._actors if actor.report is not None]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=_STOPPED_S + 2.0)
        for actor in self._actors:
            ray.kill(actor.handle, no_restart=True)
        for leaving in self._leaving:
            ray.kill(leaving.actor.handle, no_restart=True)
        self._actors.clear()
        self._leaving.clear()
        if self._registry is not None:
            ray.kill(self._registry, no_restart=True)

    def figures(self) -> dict[str, float | str]:
        """Return what is where, for ``stats``."""
        detail: dict[str, float | str] = {}
        for pool, scaling in self.pools.items():
            detail[f"{pool}_wanted"] = float(scaling.wanted)
        for actor in self._actors:
            where = actor.report.host if actor.report and actor.lost_at is None else "nowhere"
            detail[f"{actor.spec.name}.node"] = where
        return detail

    def _tell(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')} mien {text}")

    # --- one actor ---

    def _place(self, spec: ChildSpec) -> None:
        wanted = needs(spec, self._config, gpus=self._gpus, keyed=self._keyed)
        handle = self._hosts.options(
            name=spec.name,
            num_cpus=wanted.cpu,
            num_gpus=wanted.gpu,
            resources=dict(wanted.places),
            max_restarts=-1,
            max_concurrency=2,  # it is asked how it stands while it is ending
            scheduling_strategy=self._strategy(here=wanted.here),
        ).remote(spec, self._text, self.expected)
        self._actors.append(Actor(spec, handle, time.monotonic()))
        self._tell(f"placing {spec.name} ({_described(wanted)})")

    def _hear(self, actor: Actor, now: float) -> None:
        report: Report | None = None
        try:
            report = ray.get(actor.asked)
        except ray.exceptions.ActorDiedError as error:  # for good: Ray brings others back
            self._failed(actor, _first_line(error), now)
            return
        except ray.exceptions.RayError as error:
            log.debug("%s does not answer: %s", actor.spec.name, error)
        actor.asked = None
        if report is None:
            if actor.lost_at is None:
                actor.lost_at = now
                self._tell(f"{actor.spec.name} is lost with its actor: Ray is giving it another place")
            return
        before, actor.report = actor.report, report
        if before is None or before.turn != report.turn:
            again = f", {now - actor.lost_at:.1f} s after it was lost" if actor.lost_at is not None else ""
            self._tell(f"{actor.spec.name} is on {report.host}{again}")
        actor.lost_at = None
        for line in report.lines:
            self._say(line)
        self.addresses |= report.addresses
        self.complete |= report.complete and actor.spec.ends_run
        if report.failure is not None and (before is None or before.failure is None):
            self._failed(actor, report.failure, now)
        # A worker that has crashed until it was not started again is replaced, too, but does not end the run.
        actor.failed |= report.state == "failed" and actor.spec.stage in POOLS

    def _failed(self, actor: Actor, reason: str, now: float) -> None:
        actor.failed = True
        if reason in actor.said:
            return
        actor.said.add(reason)
        siblings = [other for other in self._actors if other.spec.stage == actor.spec.stage]
        replacements = self._replacements.get(actor.spec.stage)
        last = all(other.failed for other in siblings) and not (replacements and replacements.left(now))
        # One worker of a pool that cannot run, or one camera, leaves the others.
        needed = actor.spec.needed == "yes" and actor.spec.stage not in POOLS
        if needed or (actor.spec.needed != "no" and last):
            self.failure = f"{actor.spec.name} cannot run: {reason}"
        else:
            self._tell(f"{actor.spec.name} FAILED: {reason}. Everything else keeps running.")

    # --- pools ---

    def _fill(self, now: float) -> None:
        for pool, scaling in self.pools.items():
            have = [actor for actor in self._actors if actor.spec.stage == pool]
            denied = 0
            for actor in [actor for actor in have if actor.failed]:
                have.remove(actor)
                self._remove(actor, now)
                denied += not self._replacements[pool].take(now)
            most = scaling.wanted - denied
            if denied:
                self._tell(f"{pool}: too many workers have failed, going on with {len(have)} of them for now")
                scaling.no_room(most)
            waiting = [a for a in have if a.report is None and a.lost_at is None and now - a.placed_at > _NO_ROOM_S]
            placed = len(have) - sum(actor.report is None for actor in have)
            if waiting and placed >= max(1, _pool(self._config, pool).minimum):
                self._tell(f"the cluster has no room for more than {placed} workers of {pool} now")
                scaling.no_room(placed)
                self._next_room[pool] = now + _ASK_AGAIN_S
            leaving = {one.actor.number for one in self._leaving if one.actor.spec.stage == pool}
            while len(have) < min(scaling.wanted, most) and now >= self._next_room[pool]:
                numbers = {actor.number for actor in have} | leaving  # Ray may not have given up their names yet
                number = next(n for n in range(1, len(numbers) + 2) if n not in numbers)
                self._place(_numbered(self._patterns[pool], number))
                have.append(self._actors[-1])
            if denied:
                self._next_room[pool] = now + _ASK_AGAIN_S
            while len(have) > scaling.wanted:
                numbered = {actor.number: actor for actor in have}
                there = {a.number: a.report.host for a in have if a.report is not None and a.lost_at is None}
                hosts = [Placed(number=a.number, node=there.get(a.number)) for a in have]
                actor = numbered[leaver(hosts).number]
                have.remove(actor)
                self._remove(actor, now)

    def _remove(self, actor: Actor, now: float) -> None:
        """Have a process ended; ``_see_off`` then takes its actor away, so that nobody waits for it here."""
        self._actors.remove(actor)
        self._tell(f"taking {actor.spec.name} away")
        asked = actor.handle.stop.remote(_STOPPED_S) if actor.report is not None else None
        self._leaving.append(Leaving(actor, asked, now + _STOPPED_S if asked is not None else now))

    def _see_off(self, now: float) -> None:
        asked = [leaving.asked for leaving in self._leaving if leaving.asked is not None]
        done = set(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) if asked else set()
        for leaving in [one for one in self._leaving if one.asked in done or now >= one.kill_at]:
            ray.kill(leaving.actor.handle, no_restart=True)
            self._leaving.remove(leaving)

    def _strategy(self, *, here: bool) -> Any:
        return NodeAffinitySchedulingStrategy(self._here, soft=False) if here else "SPREAD"


def _pool(config: Config, pool: str) -> PoolConfig:
    found: PoolConfig = getattr(config.cluster, pool)
    return found


def _numbered(pattern: ChildSpec, number: int) -> ChildSpec:
    return ChildSpec(
        name=f"{pattern.stage}.{number}",
        stage=pattern.stage,
        module=pattern.module,
        arguments=pattern.arguments,
        needed=pattern.needed,
    )


def _described(wanted: Needs) -> str:
    parts = [f"{wanted.cpu:g} cores"] + ([f"{wanted.gpu:g} GPUs"] if wanted.gpu else [])
    return ", ".join(parts + [name for name, _ in wanted.places] + (["this node"] if wanted.here else []))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("common.run.RunError:", "RunError:"))), None)
    return told.partition("RunError:")[2].strip() if told else (lines[0] if lines else type(error).__name__)
