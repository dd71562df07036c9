"""Draws the figures of an experiment from its files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdlab.runs import files
from kdlab.runs.logs import Record
from kdlab.settings.config import Config

History = dict[str, np.ndarray]
"""Metrics by name, ``[seeds, epochs]``."""


def draw_figures(config: Config) -> Iterator[Path]:
    """Draws all figures into ``figures/`` and yields their paths."""
    histories = {m: read_history(config.directory / m) for m in config.methods}
    histories = {method: h for method, h in histories.items() if h}
    if not histories:
        return
    folder = config.directory / files.FIGURES
    folder.mkdir(exist_ok=True)
    for name, draw in (
        ("accuracy", draw_accuracy),
        ("losses", draw_losses),
        ("gradients", draw_gradients),
        ("weights", draw_weights),
    ):
        with use_style():
            figure = draw(histories)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150)
        yield path


@contextlib.contextmanager
def use_style() -> Iterator[None]:
    """Sets the style of all figures."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False}):
        yield


def read_finished(folder: Path) -> list[list[Record]]:
    """Reads the records of the finished seeds in a folder, for each seed.

    Diverged runs, which are shorter than the others, are left out.
    """
    found = (
        files.read_metrics(seed)
        for seed in files.list_seed_folders(folder)
        if files.has_result(seed) and files.DIVERGED not in files.read_result(seed)
    )
    return [records for records in found if records]


def read_history(folder: Path) -> History:
    """Reads the metrics of the finished seeds in a folder."""
    runs = read_finished(folder)
    if not runs:
        return {}
    keys = set.intersection(*(set(record) for run in runs for record in run))
    return {key: np.array([[r[key] for r in run] for run in runs]) for key in keys}


def draw_lines(
    axes: Axes, histories: dict[str, History], key: str, *, scale: float = 1.0
) -> None:
    """Draws one line per method: the mean over seeds, with a band of one deviation."""
    for i, (method, history) in enumerate(histories.items()):
        if key not in history:
            continue
        draw_band(axes, history["epoch"][0], scale * history[key], f"C{i}", method)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_band(
    axes: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str, **style: Any
) -> None:
    """Draws a mean over seeds with a band of one deviation; a single point with a bar.

    Args:
        axes: Where to draw.
        x: Positions, ``[n]``.
        values: Values, ``[seeds, n]``.
        color: Colour of both.
        label: Name in the legend.
        **style: Other options of the line.
    """
    mean = values.mean(0)
    spread = values.std(0, ddof=1) if len(values) > 1 else None
    if len(x) == 1:
        axes.errorbar(x, mean, spread, color=color, label=label, fmt="o", capsize=3)
        return
    axes.plot(x, mean, color=color, label=label, lw=1.4, **style)
    if spread is not None:
        axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.12)


def make_panels(columns: int, title: str) -> tuple[Figure, np.ndarray]:
    """Makes a figure with a row of panels, ``[columns]``."""
    figure = Figure(figsize=(4.4 * columns, 3.6), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    figure.suptitle(title)
    return figure, axes


def add_legend(figure: Figure, axes: np.ndarray) -> None:
    """Adds one legend for all panels, beside them."""
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)


def draw_accuracy(histories: dict[str, History]) -> Figure:
    """Draws test accuracy over epochs."""
    figure, axes = make_panels(
        1, "Test accuracy (mean over seeds, band: one deviation)"
    )
    draw_lines(axes[0], histories, "test/accuracy", scale=100)
    final = [h["test/accuracy"][:, -1].mean() * 100 for h in histories.values()]
    axes[0].set_ylim(max(0.0, min(final) - 25), 100)
    axes[0].set_ylabel("%")
    add_legend(figure, axes)
    return figure


def draw_losses(histories: dict[str, History]) -> Figure:
    """Draws the training losses over epochs (as in DOT, Fig. 3)."""
    names = "task", *_losses(histories)
    figure, axes = make_panels(
        len(names), "Training losses, mean over the batches of an epoch"
    )
    for ax, name in zip(axes, names, strict=True):
        draw_lines(ax, histories, f"train/loss/{name}")
        ax.set_yscale("log")
        ax.set_title(f"{name} loss")
    add_legend(figure, axes)
    return figure


def draw_gradients(histories: dict[str, History]) -> Figure:
    """Draws cosines with the task gradient and ratios of norms (DTO-KD, Fig. 1)."""
    names = _losses(histories)
    figure, axes = make_panels(
        2 * len(names), "Gradients of the losses, all parameters"
    )
    for name, (left, right) in zip(names, axes.reshape(-1, 2), strict=True):
        draw_lines(left, histories, f"gradient/cosine/{name}")
        left.axhline(0, color="0.6", lw=0.8)
        left.set_title(f"cosine of {name} and task (negative: conflict)")
        draw_lines(right, histories, f"gradient/dominance/{name}")
        right.set_yscale("log")
        right.axhline(1, color="0.6", lw=0.8)
        right.set_title(f"norm: {name} / task (dominance)")
    add_legend(figure, axes)
    return figure


def draw_weights(histories: dict[str, History]) -> Figure:
    """Draws the share of the distillation losses in the weights of each method."""
    names = _losses(histories)
    figure, axes = make_panels(len(names), "Weight of a loss, as a share of all")
    for ax, name in zip(axes, names, strict=True):
        # Methods without weights are kept, so that colours stay the same.
        shares = dict(histories)
        for method, history in histories.items():
            share = share_of(history, name)
            if share is not None:
                shares[method] = history | {"share": share}
        draw_lines(ax, shares, "share")
        ax.set_title(f"{name} loss")
        ax.set_ylim(-0.03, 1.03)
    add_legend(figure, axes)
    return figure


def share_of(history: History, name: str) -> np.ndarray | None:
    """Returns the share of a loss in the sum of the weights; None without weights."""
    weights = {
        key.removeprefix("train/weight/"): values
        for key, values in history.items()
        if key.startswith("train/weight/")
    }
    return weights[name] / sum(weights.values()) if name in weights else None


def _losses(histories: dict[str, History]) -> list[str]:
    """Returns the names of the distillation losses, or the usual one."""
    return files.list_losses(histories.values()) or ["distill"]
