"""Draws the figures of an experiment from its files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def draw_band(
    axes: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str, **style: Any
) -> None:
    """Draws a mean over seeds with a band of one deviation.

    Args:
        axes: Where to draw.
        x: Positions, ``[n]``.
        values: Values, ``[seeds, n]``.
        color: Colour of both.
        label: Name in the legend.
        **style: Other options of the line.
    """
    mean = values.mean(0)
    axes.plot(x, mean, color=color, label=label, lw=1.4, **style)
    if len(values) > 1:
        spread = values.std(0, ddof=1)
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
    """Draws task and distillation loss over epochs (as in DOT, Fig. 3)."""
    figure, axes = make_panels(2, "Training losses, mean over the batches of an epoch")
    for ax, name in zip(axes, ("task", "distill"), strict=True):
        draw_lines(ax, histories, f"train/loss/{name}")
        ax.set_yscale("log")
        ax.set_title(f"{name} loss")
    add_legend(figure, axes)
    return figure


def draw_gradients(histories: dict[str, History]) -> Figure:
    """Draws the cosine of the two gradients and the ratio of norms (DTO-KD, Fig. 1)."""
    figure, axes = make_panels(2, "Gradients of the two losses, all parameters")
    draw_lines(axes[0], histories, "gradient/cosine/distill")
    axes[0].axhline(0, color="0.6", lw=0.8)
    axes[0].set_title("cosine (negative: conflict)")
    draw_lines(axes[1], histories, "gradient/dominance/distill")
    axes[1].set_yscale("log")
    axes[1].axhline(1, color="0.6", lw=0.8)
    axes[1].set_title("norm: distillation / task (dominance)")
    add_legend(figure, axes)
    return figure


def draw_weights(histories: dict[str, History]) -> Figure:
    """Draws the relative weight of the distillation loss, for methods with weights."""
    figure, axes = make_panels(1, "Weight of the distillation loss, as a share of both")
    shares = dict(histories)  # including methods without weights: colours stay the same
    for method, history in histories.items():
        if "train/weight/distill" in history:
            task, distill = (history[f"train/weight/{n}"] for n in ("task", "distill"))
            shares[method] = history | {"share": distill / (task + distill)}
    draw_lines(axes[0], shares, "share")
    axes[0].set_ylim(-0.03, 1.03)
    add_legend(figure, axes)
    return figure
