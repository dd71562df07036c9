"""Curves of an experiment: average precision, and the two gradients."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdlab.detection.config import DetectConfig
from kdlab.detection.curves import read_curves, share_of_distillation
from kdlab.runs.plot import draw_band, use_style

_SMOOTH = 5  # measurements in a running mean


def draw_precision(config: DetectConfig, path: Path) -> None:
    """Draws AP and AP50 over the steps of the students."""
    with use_style():
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), ("ap", "ap50"), strict=True):
            _draw_methods(axes, config, f"coco/{name}", scale=100, marker="o")
            axes.set_ylabel(f"{name.upper()} (%)")
            axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def draw_gradients(config: DetectConfig, path: Path) -> None:
    r"""Draws conflict and dominance of the two gradients over the steps.

    Cosine of the gradients of the task and the distillation loss over the parameters
    that both reach, and the ratio of their norms, distillation to task; running means
    over five measurements.

    References:
        Hayder et al., DTO-KD, ICLR 2026, figure 1
    """
    with use_style():
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_methods(left, config, "gradient/cosine/distill", change=_smooth)
        left.axhline(0, color="black", lw=0.8)
        left.set_ylabel("cosine of the gradients")
        _draw_methods(right, config, "gradient/dominance/distill", change=_smooth)
        right.set_yscale("log")
        right.axhline(1, color="black", lw=0.8)
        right.set_ylabel("norm of distillation / task")
        if left.lines[:-1]:
            left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def draw_weights(config: DetectConfig, path: Path) -> None:
    """Draws the share of the distillation loss in the weights over the steps."""
    with use_style():
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for i, method in enumerate(config.methods):
            share = share_of_distillation(read_curves(config.directory / method))
            if share is None:
                continue
            mean = _smooth(share[1]).mean(0)
            axes.plot(share[0], mean, color=f"C{i}", label=method, lw=1.4)
        axes.set_ylabel("share of distillation in the weights")
        axes.set_xlabel("step")
        axes.set_ylim(0, 1)
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _draw_methods(
    axes: Axes,
    config: DetectConfig,
    key: str,
    *,
    scale: float = 1.0,
    marker: str = "",
    change: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> None:
    """Draws one line per method: the mean over seeds, with a band of one deviation."""
    for i, method in enumerate(config.methods):
        curve = read_curves(config.directory / method).get(key)
        if curve is None:
            continue
        steps, values = curve[0], change(scale * curve[1])
        draw_band(axes, steps, values, f"C{i}", method, marker=marker, ms=3)
    axes.set_xlabel("step")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Returns running means along the steps, over fewer of them at the start."""
    sums = np.cumsum(values, axis=1)
    sums[:, _SMOOTH:] -= sums[:, :-_SMOOTH].copy()
    return sums / np.minimum(np.arange(1, values.shape[1] + 1), _SMOOTH)
