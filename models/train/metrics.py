"""What the evaluation counts: accuracy, recalls, confusion, calibration. NumPy only."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from common.expressions import EXPRESSIONS

CALIBRATION_BINS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How well probabilities (N, 7) agree with the truth (N,)."""

    images: int
    accuracy: float
    macro_recall: float
    recalls: NDArray[np.float64]  # (7,), NaN where the truth has none
    confusion: NDArray[np.int64]  # (7, 7), rows: truth, columns: prediction
    calibration_error: float

    def __str__(self) -> str:
        recalls = " ".join(f"{name} {recall:.3f}" for name, recall in zip(EXPRESSIONS, self.recalls, strict=True))
        return (
            f"accuracy {self.accuracy:.4f}  macro recall {self.macro_recall:.4f}  "
            f"calibration error {self.calibration_error:.4f}  ({recalls})"
        )


def score(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> Scores:
    """Compare probabilities (N, 7) with the truth (N,)."""
    if probabilities.shape != (len(truth), len(EXPRESSIONS)) or len(truth) == 0:
        raise ValueError(f"expected probabilities ({len(truth)}, {len(EXPRESSIONS)}), got {probabilities.shape}")
    confusion = np.zeros((len(EXPRESSIONS),) * 2, dtype=np.int64)
    np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
    totals = confusion.sum(axis=1)
    recalls = np.where(totals > 0, np.diag(confusion) / np.maximum(totals, 1), np.nan)
    return Scores(
        images=len(truth),
        accuracy=float(np.trace(confusion) / len(truth)),
        macro_recall=float(np.nanmean(recalls)),
        recalls=recalls,
        confusion=confusion,
        calibration_error=calibration_error(probabilities, truth),
    )


def reliability(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean confidence and accuracy in equally wide bins of confidence, each (bins,); NaN in empty ones."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(bin_of, weights=right, minlength=bins) / count
    return count, mean_confidence, accuracy


def calibration_error(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """Expected calibration error over fifteen bins of confidence (Guo et al. 2017)."""
    count, confidence, accuracy = reliability(probabilities, truth)
    filled = count > 0
    return float(np.sum(count[filled] * np.abs(confidence[filled] - accuracy[filled])) / len(truth))


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, 7) of logits (N, 7) divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def best_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The temperature with the highest likelihood of the truth (N,) given logits (N, 7) (Guo et al. 2017)."""

    def surprise(log_temperature: float) -> float:
        chosen = softmax(logits, float(np.exp(log_temperature)))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(chosen, 1e-12)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded").x))
