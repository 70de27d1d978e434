"""Plots beside the tables: PNG files next to the JSON in ``runs/bench``. Needs matplotlib, of the extra ``train``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # Okabe–Ito

Points = Sequence[tuple[float, float]]


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def lines(
    path: Path,
    title: str,
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = True,
) -> str:
    """Draw series of (x, y), write the PNG and return the sentence that says where it is."""
    if not available():
        return "no plot: pip install 'mien[train]'"
    figure, axes = _figure(title, x, y)
    for (name, points), colour in zip(series.items(), COLOURS * 3, strict=False):
        columns = list(zip(*sorted(points), strict=True)) or [(), ()]
        axes.plot(*columns, "o-" if marks else "-", color=colour, label=name, linewidth=1.6, markersize=4)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend(frameon=False)
    return _written(figure, path)


def bars(path: Path, title: str, groups: Mapping[str, Mapping[str, float]], *, y: str, log_y: bool = False) -> str:
    """Draw groups of bars (group: name: value), write the PNG and return the sentence that says where it is."""
    if not available():
        return "no plot: pip install 'mien[train]'"
    figure, axes = _figure(title, "", y)
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(len(names), 1)
    for number, (name, colour) in enumerate(zip(names, COLOURS * 3, strict=False)):
        places = [at + (number - (len(names) - 1) / 2) * width for at in range(len(groups))]
        values = [group.get(name, float("nan")) for group in groups.values()]
        drawn = axes.bar(places, values, width * 0.92, color=colour, label=name)
        axes.bar_label(drawn, fmt=lambda value: f"{value:.0f}" if value >= 10 else f"{value:.2g}", fontsize=7)
    axes.set_xticks(range(len(groups)), list(groups))
    if log_y:
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)
    return _written(figure, path)


def _figure(title: str, x: str, y: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _written(figure: Any, path: Path) -> str:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return f"drawn in {path}"
