"""The settings of one training run, read from a TOML file."""

import itertools
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.train.augment import Augmentation


class Phase(BaseModel):
    """A stretch of the run at one input size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until: float = Field(gt=0, le=1, description="share of the run's whole computation at which the phase ends")
    size: int = Field(ge=16, le=160, description="side of the network's input in pixels")


class RunConfig(BaseModel):
    """Everything that decides what a run learns, apart from the data and the processor's rounding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 1
    shape: Literal["residual", "face_recognition", "mobilenet"] = Field(
        "residual",
        description="face_recognition: dlib's layers, beginning with its weights; mobilenet: those of faceres",
    )
    widths: tuple[int, ...] = (24, 48, 112, 256)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    stem: Literal["plain", "deep"] = Field(
        "plain", description="deep: a convolution at full size before the first half"
    )
    enlarged: float = Field(
        1.0, ge=1, le=4, description="times that the graph enlarges its input: layers of another work know larger faces"
    )
    frozen: int = Field(0, ge=0, description="the stem and that many blocks stay as they are when the run begins")
    dropout: float = Field(0.2, ge=0, lt=1)

    passes: float = Field(
        gt=0, description="length of the run: passes over the data, counted at the largest input size"
    )
    phases: tuple[Phase, ...]
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(0.06, gt=0, description="highest learning rate")
    warm_up: float = Field(0.04, ge=0, lt=1, description="share of the run with rising learning rate")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    average: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights, a step")
    balance: float = Field(0.4, ge=0, le=1, description="0: draw images as they are; 1: all expressions equally often")
    fer2013_weight: float = Field(0.2, ge=0, description="weight of the auxiliary loss on the FER2013 label")
    teaching: float = Field(
        0.7, ge=0, le=1, description="with teachers: share of the loss that follows them instead of the votes"
    )
    mixing: float = Field(0.0, ge=0, le=1, description="share of batches whose images are mixed in pairs (mixup)")
    evaluate_every: float = Field(0.05, gt=0, le=1, description="share of the run between two evaluations")
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _phases_cover_the_run(self) -> Self:
        ends = [phase.until for phase in self.phases]
        if not ends or ends[-1] != 1.0 or any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"phases must end at rising shares of the run, the last at 1.0; they end at {ends}")
        return self

    @property
    def size(self) -> int:
        """Side of the input of the finished network: that of the last phase."""
        return self.phases[-1].size


def read(path: Path) -> RunConfig:
    """Read a run's settings; ValueError names the file, the key and what would be right."""
    try:
        return RunConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ValueError(f"{path}: {error}") from error
