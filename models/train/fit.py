"""The training loop: one run, resumable, in a directory of its own.

The directory holds ``config.toml`` (a copy), ``log.csv`` (a row an epoch) and ``checkpoint.pt`` (all needed to go on).
"""

import csv
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.nn import functional

from models import runtime
from models.train import config as run_config
from models.train import data as fer
from models.train.config import RunConfig
from models.train.metrics import Scores, score, softmax
from models.train.network import ExpressionNet, FaceRecognitionShaped, MobileNetShaped, new_network, shortened
from models.train.pretrained import read_faceres, start_with_face_recognition, start_with_faceres
from models.train.schedule import Schedule

log = logging.getLogger(__name__)

COLUMNS = (
    "epoch", "progress", "size", "learning_rate", "seconds", "images_s", "loss",
    "accuracy", "macro_recall", "calibration_error", "sad_recall", "disgusted_recall", "fearful_recall",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The training split as tensors."""

    images: Tensor  # (N, 1, H, W) uint8
    targets: Tensor  # (N, 7) float32
    fer2013_label: Tensor  # (N,) int64, -1 unknown
    weights: NDArray[np.float64]  # (N,)


def training_set(directory: Path, balance: float) -> TrainingSet:
    """Load ``fer_train.npz`` of that directory for fitting."""
    split = fer.for_training(fer.load(directory / "fer_train.npz"))
    targets = split.targets()
    return TrainingSet(
        images=torch.from_numpy(split.images)[:, None],
        targets=torch.from_numpy(targets),
        fer2013_label=torch.from_numpy(split.fer2013_label),
        weights=fer.sampling_weights(targets, balance),
    )


def device_and_precision() -> tuple[torch.device, torch.dtype]:
    """A GPU when there is one; bf16 where the hardware computes it, and sooner than float32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    # Without AMX some processors have instructions for bf16 that are slower than those for float32.
    quicker = native and _convolution_s(torch.bfloat16) < _convolution_s(torch.float32)
    return torch.device("cpu"), torch.bfloat16 if quicker else torch.float32


@torch.no_grad()
def _convolution_s(precision: torch.dtype) -> float:
    """Seconds that a convolution of usual shape takes, the best of a few."""
    # Nothing is drawn by chance here: a run's seed must mean the same on every processor.
    weights = torch.ones(64, 64, 3, 3, dtype=precision)
    faces = torch.ones(32, 64, 12, 12, dtype=precision).to(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        functional.conv2d(faces, weights, padding=1)
        times.append(time.perf_counter() - began)
    return min(times)


CHECKPOINT = "checkpoint.pt"


Opinion = Callable[[Tensor], Tensor]
"""Faces (N, 1, S, S) to probabilities (N, 7)."""


class Teachers:
    """Finished networks whose averaged opinion another one learns (Hinton et al. 2015), on the very faces that it sees.

    Every second one looks at the mirrored face, the others do the next time, so that what is learned is the opinion on
    both (Beyer et al. 2022: a patient student that sees what its teachers see). Each comes with the side of its input.
    """

    def __init__(self, opinions: Sequence[tuple[Opinion, int]]) -> None:
        self._opinions = opinions
        self._mirrored = False

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        """Probabilities (N, 7) of faces (N, 1, S, S)."""
        total: Tensor | None = None
        for place, (opinion, size) in enumerate(self._opinions):
            seen = faces if faces.shape[-1] == size else functional.interpolate(faces, size=size, mode="bilinear")
            said = opinion(seen.flip(3) if place % 2 != self._mirrored else seen)
            total = said if total is None else total + said
        assert total is not None, "teachers without a network"
        self._mirrored = not self._mirrored
        return total / len(self._opinions)


def teachers(runs: Sequence[Path], *, compiled: bool = False) -> Teachers | None:
    """Finished runs as teachers; None without runs.

    Each is what `finished` takes, or a file that `export` wrote (``.onnx``, ``-int8.xml``): with OpenVINO a teacher of
    eight bits takes half the time.
    """
    opinions = [_of_file(run) if run.suffix in (".onnx", ".xml") else _of_run(run, compiled) for run in runs]
    return Teachers(opinions) if opinions else None


def _of_run(run: Path, compiled: bool) -> tuple[Opinion, int]:
    network, config = averaged_network(finished(run))
    network = network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(network) if compiled else network

    def opinion(faces: Tensor) -> Tensor:
        return torch.softmax(forward(faces.contiguous(memory_format=torch.channels_last)).float(), dim=1)

    return opinion, config.size


def _of_file(path: Path) -> tuple[Opinion, int]:
    network = runtime.compile_network(lambda: runtime.read(path), key="teacher", sources=(path,), bf16_allowed=True)

    def opinion(faces: Tensor) -> Tensor:
        return torch.from_numpy(network(faces.float().cpu().contiguous().numpy())[0].copy()).to(faces.device)

    return opinion, network.input_shape[2]


def finished(run: Path) -> dict[str, Any]:
    """The settings and averaged weights of a run, from its directory or from the file that `export --start` wrote.

    FileNotFoundError names what is missing; ValueError: the file holds something else.
    """
    file = run / CHECKPOINT if run.is_dir() else run
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; give a run's directory or a file that export --start wrote")
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=not run.is_dir())
    if not {"config", "average"} <= state.keys():
        raise ValueError(f"{file} does not say which network its weights are of: export them again with --start")
    return state


def averaged_network(state: dict[str, Any]) -> tuple[ExpressionNet, RunConfig]:
    """The network of a checkpoint with its averaged weights, ready for evaluation, and the settings of its run."""
    config = RunConfig.model_validate(state["config"])
    network = new_network(config)
    network.load_state_dict(state["average"])
    return network.eval(), config


class Crew(Protocol):
    """Processes that fit the same weights."""

    processes: int

    def step(self, images: int) -> int:
        """Count images of this process; gives how many all processes have done since it last asked."""
        ...

    def end(self) -> None:
        """Wait for the helpers to end."""
        ...


class Run:
    """One training run: networks, optimizer, schedule and random states."""

    def __init__(
        self,
        config: RunConfig,
        train: TrainingSet,
        deadline: float | None = None,
        *,
        compiled: bool = False,
        teachers: Teachers | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.train = train
        self.device, self.precision = device_and_precision()
        self.network = self._new_network()
        self.average = self._new_network()
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = self._new_optimizer()
        self.compiled = compiled
        self.teachers = teachers
        self._forward = self._new_forward()
        self.schedule = Schedule(config, len(train.weights), deadline)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.order = np.random.default_rng(config.seed)
        self.epoch = 0
        self.steps = 0

    def _new_network(self) -> ExpressionNet:
        network = new_network(self.config)
        return network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _new_forward(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return torch.compile(self.network.both) if self.compiled else self.network.both

    def _new_optimizer(self) -> torch.optim.SGD:
        fitted = [weight for name, weight in self.network.named_parameters() if not self.network.keeps(name)]
        decayed = [weight for weight in fitted if weight.ndim > 1]
        plain = [weight for weight in fitted if weight.ndim <= 1]
        return torch.optim.SGD(
            [{"params": decayed, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
            nesterov=True,
        )

    def start_with(self, faceres: Path | None = None) -> None:
        """Begin with what another network knows, as far as it sees faces like these: faceres, or dlib's, by shape."""
        size = self.schedule.size
        faces = self.train.images[torch.from_numpy(self.order.choice(len(self.train.images), 512))].float() / 255
        faces = functional.interpolate(faces, size=size, mode="bilinear", antialias=True).to(self.device)
        if isinstance(self.network, FaceRecognitionShaped):
            start_with_face_recognition(self.network, faces)
        elif isinstance(self.network, MobileNetShaped) and faceres is not None:
            start_with_faceres(self.network, read_faceres(faceres), faces)
        else:
            raise ValueError(f"--start {faceres} is for the shape mobilenet, not for {self.config.shape}")
        self.average.load_state_dict(self.network.state_dict())

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return {
            "config": self.config.model_dump(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": self.schedule.progress,
            "epoch": self.epoch,
            "steps": self.steps,
            "torch_random": torch.get_rng_state(),
            "augmentation_random": self.generator.get_state(),
            "order_random": self.order.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state; ValueError when it belongs to a run with another network."""
        before = RunConfig.model_validate(state["config"])
        if any(
            getattr(before, key) != getattr(self.config, key)
            for key in ("shape", "stem", "widths", "depths", "enlarged")
        ):
            raise ValueError(
                "the checkpoint holds another network than the configuration; choose another run directory"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.progress = state["progress"]
        self.epoch, self.steps = state["epoch"], state["steps"]
        torch.set_rng_state(state["torch_random"])
        self.generator.set_state(state["augmentation_random"])
        self.order.bit_generator.state = state["order_random"]

    def adopt(self, network: ExpressionNet, average: ExpressionNet) -> None:
        """Fit these weights, which other processes may fit at the same time, instead of its own."""
        momentum = self.optimizer.state_dict()
        self.network, self.average = network, average
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(momentum)
        self._forward = self._new_forward()

    def one_epoch(self, progress: Progress | None = None, crew: Crew | None = None) -> tuple[float, float]:
        """Fit one epoch (less at the end of the run); gives the mean loss and the images a second of this process."""
        rows = torch.from_numpy(fer.draw_epoch(self.train.weights, self.order))
        if crew is not None:
            rows = rows[: len(rows) // crew.processes]
        if len(rows) < self.config.batch:
            raise ValueError(f"{len(rows)} images make no batch of {self.config.batch}: take more, or a smaller batch")
        began, loss_sum, seen = time.monotonic(), 0.0, 0
        task = progress.add_task(f"epoch {self.epoch + 1}", total=len(rows)) if progress else None
        self.network.train()
        for start in range(0, len(rows) - self.config.batch + 1, self.config.batch):
            loss_sum += self._step(rows[start : start + self.config.batch]) * self.config.batch
            seen += self.config.batch
            self.schedule.step(self.config.batch if crew is None else crew.step(self.config.batch))
            if progress and task is not None:
                progress.update(task, advance=self.config.batch, loss=loss_sum / seen, size=self.schedule.size)
            if self.schedule.done:
                break
        if progress and task is not None:
            progress.remove_task(task)
        self.epoch += 1
        return loss_sum / seen, seen / (time.monotonic() - began)

    def _step(self, rows: Tensor) -> float:
        faces = self.train.images[rows].float() / 255
        targets, labels = self.train.targets[rows], self.train.fer2013_label[rows]
        faces = self.config.augmentation(faces, self.schedule.size, self.generator)
        if float(torch.rand((), generator=self.generator)) < self.config.mixing:
            share = 0.5 + 0.5 * float(torch.rand((), generator=self.generator))
            faces = share * faces + (1 - share) * faces.flip(0)
            targets = share * targets + (1 - share) * targets.flip(0)
        faces = faces.to(self.device, memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            if self.teachers is not None:
                said = self.teachers(faces).cpu()
                targets = self.config.teaching * said + (1 - self.config.teaching) * targets
            logits, fer2013_logits = self._forward(faces)
        loss = functional.cross_entropy(logits.float(), targets.to(self.device))
        if self.config.fer2013_weight and bool((labels >= 0).any()):
            auxiliary = functional.cross_entropy(fer2013_logits.float(), labels.to(self.device), ignore_index=-1)
            total = loss + self.config.fer2013_weight * auxiliary
        else:
            total = loss
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.steps += 1
        self._update_average()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss became {value} in step {self.steps}; lower learning_rate and resume")
        return value

    @torch.no_grad()
    def _update_average(self) -> None:
        # Young averages follow quickly, or the random start would stay in them for epochs.
        decay = min(self.config.average, (1 + self.steps) / (10 + self.steps))
        for mean, now in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


@torch.no_grad()
def logits_of(network: ExpressionNet, images: NDArray[np.uint8], size: int, batch: int = 128) -> NDArray[np.float32]:
    """Logits (N, 7) of grey images (N, H, W), resized to the network's input."""
    network.eval()
    device = next(network.parameters()).device
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(images), batch):
        faces = torch.from_numpy(images[start : start + batch])[:, None].float() / 255
        faces = functional.interpolate(faces, size=size, mode="bilinear", antialias=True).to(device)
        parts.append(network(faces.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(parts)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def open_run(
    data: Path,
    config_file: Path,
    out: Path,
    *,
    deadline: float | None,
    start: Path | None,
    compiled: bool = False,
    taught_by: Sequence[Path] = (),
) -> Run:
    """The run in the directory ``out``: a new one, or the one whose checkpoint lies there."""
    config = run_config.read(config_file)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        config,
        training_set(data, config.balance),
        deadline,
        compiled=compiled,
        teachers=teachers(taught_by, compiled=compiled),
    )
    checkpoint, table = out / CHECKPOINT, out / "log.csv"
    if checkpoint.exists():
        run.restore(torch.load(checkpoint, map_location="cpu", weights_only=False))
        log.info("going on after epoch %d, %.1f %% of the run", run.epoch, 100 * run.schedule.progress)
    elif start is not None and start.suffix == ".json":
        run.start_with(faceres=start)
    elif start is not None:
        state = finished(start)
        # The run's stages may have more blocks than are wanted here.
        weights = shortened(state["average"], RunConfig.model_validate(state["config"]).depths, config.depths)
        run.network.load_state_dict(weights)
        run.average.load_state_dict(weights)
    elif isinstance(run.network, FaceRecognitionShaped):
        run.start_with()
    shutil.copyfile(config_file, out / "config.toml")
    if not table.exists():
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(COLUMNS)
    return run


def fit(
    data: Path,
    config_file: Path,
    out: Path,
    *,
    deadline: float | None = None,
    threads: int = 2,
    start: Path | None = None,
    crew: Callable[[Run], Crew] | None = None,
    compiled: bool = False,
    taught_by: Sequence[Path] = (),
) -> Scores:
    """Run, or go on with, the run in ``out``; gives the scores of the averaged weights on the validation split.

    ``deadline`` is in seconds of `time.time`; ``start`` holds weights to begin with; ``crew`` starts processes
    that help; ``compiled`` fuses the network's operations first, which needs a C++ compiler and a minute, and then
    takes half the time; ``taught_by`` are finished runs (`finished`) whose opinion is learned beside the votes.
    """
    torch.set_num_threads(threads)
    run = open_run(data, config_file, out, deadline=deadline, start=start, compiled=compiled, taught_by=taught_by)
    validation = fer.load(data / "fer_val.npz")
    validation = validation.select(validation.judgeable())

    def evaluate() -> Scores:
        # Weights that learn at one size do badly at another: look at them at the size that they have just seen.
        logits = logits_of(run.average, validation.images, run.schedule.size)
        return score(softmax(logits), validation.truth())

    helpers = crew(run) if crew is not None else None
    bar = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields}"), transient=True)
    next_evaluation = run.schedule.progress + run.config.evaluate_every
    scores: Scores | None = None
    with bar:
        while not run.schedule.done:
            size, rate, began = run.schedule.size, run.schedule.learning_rate, time.monotonic()
            loss, speed = run.one_epoch(bar if bar.console.is_terminal else None, helpers)
            scores = None
            if run.schedule.progress >= next_evaluation or run.schedule.done:
                scores = evaluate()
                next_evaluation = run.schedule.progress + run.config.evaluate_every
            # In this order: an epoch that was interrupted is done, and written down, again.
            save_atomically(run.state(), out / CHECKPOINT)
            _append(out / "log.csv", run, size, rate, time.monotonic() - began, speed, loss, scores)
    if helpers is not None:
        helpers.end()
    return scores if scores is not None else evaluate()


def _append(
    table: Path, run: Run, size: int, rate: float, seconds: float, speed: float, loss: float, scores: Scores | None
) -> None:
    row = [
        run.epoch,
        f"{run.schedule.progress:.4f}",
        size,
        f"{rate:.5f}",
        f"{seconds:.1f}",
        f"{speed:.0f}",
        f"{loss:.4f}",
    ]
    if scores is not None:
        recalls = scores.recalls[[4, 1, 2]]
        row += [f"{x:.4f}" for x in (scores.accuracy, scores.macro_recall, scores.calibration_error, *recalls)]
    with table.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(row)
    log.info(
        "epoch %d  %.1f %%  %d px  rate %.4f  %.0f s  %.0f images/s  loss %.4f  %s",
        run.epoch, 100 * run.schedule.progress, size, rate, seconds, speed, loss, scores or "",
    )  # fmt: skip
