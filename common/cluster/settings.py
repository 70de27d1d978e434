"""How stages are spread over a cluster, a section of the configuration: ``[cluster]``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from common.alerts.rules import Section
from common.messages import Name

Resource = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Target = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")]


class PoolConfig(Section):
    """One pool on the cluster: how many workers, and what each takes of its node."""

    minimum: int = Field(default=1, ge=0, le=1024)
    maximum: int = Field(default=4, ge=0, le=1024)
    cpu: float = Field(default=1.0, ge=0, le=64, description="cores a worker is counted as, on its node")
    gpu: float = Field(default=0.0, ge=0, le=8, description="… and GPUs, in a cluster that has any")

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum ({self.maximum}) must not be below minimum ({self.minimum})")
        return self


class ScalingConfig(Section):
    """When a pool grows and when it shrinks."""

    grow_after_s: float = Field(default=3, ge=1, le=600, description="a backlog that lasts so long adds workers")
    shrink_after_s: float = Field(default=60, ge=1, le=86400, description="so long with too many takes one away")
    lost_share: float = Field(
        default=0.05, gt=0, lt=1, description="more work than this lost for want of a worker: backlog"
    )
    busy: float = Field(
        default=0.8, gt=0, le=1, description="a pool grows until its workers are busy so much of the time"
    )
    idle: float = Field(
        default=0.5, gt=0, le=1, description="one goes when those that stay would be busy less than this"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.idle >= self.busy:
            raise ValueError("idle must be below busy, or a pool would grow and shrink without end")
        return self


class ClusterConfig(Section):
    """Where stages may run on a Ray cluster (``launch.py --cluster ADDRESS``), and how many of them."""

    name: Name = Field(default="mien", description="of this run on the cluster; two runs have two names")
    places: dict[Target, Resource] = Field(
        default_factory=dict,
        description="stage, or process (capture.cam0), to a custom resource that only the nodes have where it may run",
    )
    detection: PoolConfig = PoolConfig()
    identity: PoolConfig = PoolConfig(maximum=2, cpu=0.5)
    expression: PoolConfig = PoolConfig(maximum=2, cpu=0.5)
    scaling: ScalingConfig = ScalingConfig()
