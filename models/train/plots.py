"""The two pictures of an evaluation, drawn with matplotlib: confusion matrix and reliability."""

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from models.train.metrics import Scores, reliability

matplotlib.use("Agg")
from matplotlib import pyplot


def confusion(scores: Scores, path: Path) -> None:
    """Write the confusion matrix, in shares of each row, as PNG."""
    share = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(6.4, 5.6), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(share.shape):
        colour = "white" if share[row, column] > 0.5 else "black"
        text = f"{share[row, column]:.0%}\n({scores.confusion[row, column]})"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(EXPRESSIONS))
    axes.set_xticks(ticks, EXPRESSIONS, rotation=35, ha="right")
    axes.set_yticks(ticks, EXPRESSIONS)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth (largest vote)")
    axes.set_title(f"{scores.images} images, accuracy {scores.accuracy:.1%}, macro recall {scores.macro_recall:.1%}")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def reliability_plot(probabilities: NDArray[np.floating], truth: NDArray[np.int64], path: Path) -> None:
    """Write how often the prediction is right, by confidence, as PNG."""
    count, confidence, accuracy = reliability(probabilities, truth)
    filled = count > 0
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(5.2, 6), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    above.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="perfect calibration")
    above.plot(confidence[filled], accuracy[filled], marker="o", color="#0072B2", label="measured")
    above.set_ylabel("share that is right")
    above.set_ylim(0, 1)
    above.legend()
    below.bar((np.arange(len(count)) + 0.5) / len(count), count, width=0.9 / len(count), color="#999999")
    below.set_ylabel("images")
    below.set_xlabel("confidence")
    below.set_xlim(0, 1)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
