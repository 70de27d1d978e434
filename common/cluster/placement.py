"""What a process needs of the node it runs on, and which worker goes when a pool shrinks. Pure: knows no cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.child import ChildSpec
from common.cluster.settings import ClusterConfig, PoolConfig
from common.config import ConfigError
from common.settings import POOLS, Config
from common.sources import parse_source

# They read or write what lasts: the store, pictures, numbers. Unless told otherwise they stay where the command runs.
KEEPERS: Final = ("conductor", "snapshot", "alerts", "history", "dashboard", "mqtt")
_HERE: Final = ("webcam", "screen")  # sources that are a machine's own
_CORES: Final = {"conductor": 1.0, "capture": 0.5, "preview": 0.2}  # the others hardly compute
_SHARE: Final = 0.001  # of a place that many may share


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a node must have.

    Attributes:
        cpu, gpu: cores and GPUs that the process is counted as.
        places: custom resources, and how much of each.
        here: it runs on the node where the command was given, and nowhere else.
    """

    cpu: float
    gpu: float = 0.0
    places: tuple[tuple[str, float], ...] = ()
    here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A worker of a pool as the choice of ``leaver`` sees it: its number, where it is (None: nowhere yet)."""

    number: int
    node: str | None


def needs(spec: ChildSpec, config: Config, *, gpus: float, keyed: bool = False) -> Needs:
    """Return what a process needs.

    Args:
        gpus: how many the whole cluster has; without any, nothing waits for one.
        keyed: the nodes are machines of their own, so that channels open with keys only. Then only cameras and workers
            go elsewhere by themselves: the server's key, which opens the rest, is where the command runs.
    """
    settings = config.cluster
    pool: PoolConfig | None = getattr(settings, spec.stage) if spec.stage in POOLS else None
    cpu, gpu = (pool.cpu, pool.gpu if gpus >= pool.gpu else 0.0) if pool else (_CORES.get(spec.stage, 0.0), 0.0)
    place = settings.places.get(spec.name) or settings.places.get(spec.stage)
    if place is not None:
        # A camera's place holds one capture; other places are shared.
        amount = 1.0 if spec.stage == "capture" and spec.name in settings.places else _SHARE
        return Needs(cpu=cpu, gpu=gpu, places=((place, amount),))
    stays = spec.stage in (*KEEPERS, "display") or (keyed and spec.stage not in ("capture", *POOLS))
    return Needs(cpu=cpu, gpu=gpu, here=stays or _is_local(spec, config))


def check_places(specs: Sequence[ChildSpec], settings: ClusterConfig) -> None:
    """Raise ConfigError when a place is given to what does not exist."""
    known = {spec.name for spec in specs} | {spec.stage for spec in specs} | set(POOLS)
    for target in settings.places:
        if target not in known:
            raise ConfigError(
                f"cluster.places: nothing here is called {target!r}; a key is a stage or a process: "
                f"{', '.join(sorted(known))}"
            )


def leaver(workers: Sequence[Placed]) -> Placed:
    """Return which worker goes: one that has no node yet, else the youngest on the fullest node."""
    crowd: dict[str | None, int] = {}
    for worker in workers:
        crowd[worker.node] = crowd.get(worker.node, 0) + 1
    return max(workers, key=lambda worker: (worker.node is None, crowd[worker.node], worker.number))


def _is_local(spec: ChildSpec, config: Config) -> bool:
    if spec.stage != "capture":
        return False
    camera = config.cameras[spec.name.removeprefix("capture.")]
    return parse_source(camera.source).kind in _HERE
