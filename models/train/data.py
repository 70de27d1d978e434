"""FER2013 images with the FER+ votes: loading, soft targets, sampling weights and the evaluation rule.

A data file is an ``.npz`` with ``images`` uint8 (N, 48, 48), ``votes`` uint8 (N, 10) of ten annotators in the
column order of `VOTE_COLUMNS`, and ``fer2013_label`` int8 (N,), -1 where unknown.
Sources: Goodfellow et al. 2013 (FER2013); Barsoum et al. 2016 (FER+).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS

VOTE_COLUMNS: Final = (
    "neutral", "happy", "surprised", "sad", "angry", "disgusted", "fearful", "contempt", "unknown", "not a face",
)  # fmt: skip
_TO_CONTRACT: Final = [VOTE_COLUMNS.index(name) for name in EXPRESSIONS]
FEWEST_VOTES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FerData:
    """One split, its votes already in the order of `EXPRESSIONS`."""

    images: NDArray[np.uint8]  # (N, 48, 48) grey
    votes: NDArray[np.int64]  # (N, 7), single votes dropped
    other_votes: NDArray[np.int64]  # (N, 3): contempt, unknown, not a face; single votes dropped
    fer2013_label: NDArray[np.int64]  # (N,) 0..6 in the order of EXPRESSIONS, -1 where unknown

    def __len__(self) -> int:
        return len(self.images)

    def truth(self) -> NDArray[np.int64]:
        """The expression with most votes, (N,); of equals the first column in the order of the votes file wins."""
        columns = sorted(range(len(EXPRESSIONS)), key=lambda expression: _TO_CONTRACT[expression])
        order = np.array(columns)
        return np.asarray(order[self.votes[:, order].argmax(axis=1)], dtype=np.int64)

    def judgeable(self) -> NDArray[np.bool_]:
        """Which images the evaluation rule keeps, (N,): at least three votes, and the largest one of the seven."""
        largest = self.votes.max(axis=1) >= self.other_votes.max(axis=1)
        return np.asarray(largest & (self.votes.sum(axis=1) >= FEWEST_VOTES))

    def select(self, rows: NDArray[np.bool_]) -> "FerData":
        """The rows for which the mask (N,) is true."""
        return FerData(
            images=self.images[rows],
            votes=self.votes[rows],
            other_votes=self.other_votes[rows],
            fer2013_label=self.fer2013_label[rows],
        )

    def targets(self) -> NDArray[np.float32]:
        """Shares of the votes, (N, 7), rows sum to 1."""
        return np.asarray(self.votes / self.votes.sum(axis=1, keepdims=True), dtype=np.float32)


def load(path: Path) -> FerData:
    """Read one split; ValueError names the file and what is wrong with it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; --data must be a directory with fer_train.npz and fer_val.npz")
    with np.load(path, allow_pickle=False) as archive:
        missing = {"images", "votes", "fer2013_label"} - set(archive.files)
        if missing:
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(archive.files)}")
        images, votes, label = archive["images"], archive["votes"], archive["fer2013_label"]
    if images.ndim != 3 or images.dtype != np.uint8 or votes.shape != (len(images), len(VOTE_COLUMNS)):
        raise ValueError(
            f"{path}: expected images (N, H, W) uint8 and votes (N, {len(VOTE_COLUMNS)}), "
            f"got {images.shape} {images.dtype} and {votes.shape}"
        )
    counts = votes.astype(np.int64)
    counts[counts == 1] = 0
    return FerData(
        images=images,
        votes=counts[:, _TO_CONTRACT],
        other_votes=counts[:, len(EXPRESSIONS) :],
        fer2013_label=label.astype(np.int64),
    )


def for_training(data: FerData) -> FerData:
    """Leave out what says little about the seven: fewer than three votes for them, or mostly voted not to be a face."""
    not_a_face = data.other_votes[:, 2] > data.votes.max(axis=1)
    return data.select((data.votes.sum(axis=1) >= FEWEST_VOTES) & ~not_a_face)


def sampling_weights(targets: NDArray[np.float32], power: float) -> NDArray[np.float64]:
    """How often an image is drawn in an epoch, (N,), mean 1: the rarer its expressions the more often.

    An expression that makes up a share ``f`` of all votes counts ``f ** -power``: 0 leaves the data as they are, 1
    draws all expressions equally often.
    """
    share = targets.mean(axis=0, dtype=np.float64)
    weights = targets.astype(np.float64) @ share**-power
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def draw_epoch(weights: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Shuffled row numbers of one epoch: row i occurs floor(w_i) or ceil(w_i) times, w_i on average."""
    times = np.floor(weights + generator.random(len(weights))).astype(np.int64)
    rows = np.repeat(np.arange(len(weights)), times)
    generator.shuffle(rows)
    return rows
