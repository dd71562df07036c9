"""Draws figures of the papers from the files of finished runs.

Curves over epochs are in :mod:`kdlab.runs.plot`; this module draws gradients, minima
and theory.
"""

from collections.abc import Mapping

import jax
import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from kdlab.minima import kim
from kdlab.minima.measure import Measures
from kdlab.runs.plot import History, add_legend, draw_lines, make_panels

LAMBDAS = np.linspace(0, 1, 101)
SAMPLE = 20_000
MAX_DIFFERENCE = 3.0


def draw_curves(measures: Mapping[str, Measures]) -> Figure:
    """Draws losses along one random direction through each minimum (DOT, Fig. 2)."""
    figure, axes = make_panels(
        2, "Training losses along one filter-normalised direction"
    )
    for panel, name in zip(axes, ("task", "distill"), strict=True):
        for i, (method, found) in enumerate(measures.items()):
            panel.plot(
                found["axis"], found[f"curve/{name}"], color=f"C{i}", label=method
            )
        panel.set(title=f"{name} loss", xlabel="step, in filter norms")
    add_legend(figure, axes)
    return figure


def draw_contours(measures: Mapping[str, Measures], name: str = "task") -> Figure:
    """Draws contours along two random directions, with the same levels for all."""
    figure, axes = _panels(len(measures), f"Training {name} loss around each minimum")
    planes = [found[f"plane/{name}"] for found in measures.values()]
    low, high = min(map(np.min, planes)), float(np.median([p.max() for p in planes]))
    levels = np.geomspace(max(low, 1e-4), max(high, 1e-3), 16)
    for panel, (method, found) in zip(axes, measures.items(), strict=False):
        drawn = panel.contourf(
            found["plane"],
            found["plane"],
            found[f"plane/{name}"].T,
            levels=levels,
            norm=mpl.colors.LogNorm(),
            cmap="viridis",
            extend="both",
        )
        panel.plot(0, 0, "+", color="white")
        panel.set(title=method, aspect="equal")
    figure.colorbar(drawn, ax=list(axes), label="loss", format="%.3g")
    return figure


def draw_surfaces(measures: Mapping[str, Measures], name: str = "task") -> Figure:
    """Draws surfaces along two random directions, on one scale (DOT, Fig. 2)."""
    figure, axes = _panels(
        len(measures), f"Training {name} loss around each minimum", projection="3d"
    )
    planes = [found[f"plane/{name}"] for found in measures.values()]
    # One steep landscape would make all others look flat.
    highest = float(np.median([plane.max() for plane in planes]))
    lowest = float(min(plane.min() for plane in planes))
    for panel, (method, found) in zip(axes, measures.items(), strict=False):
        assert isinstance(panel, Axes3D)
        x, y = np.meshgrid(found["plane"], found["plane"], indexing="ij")
        height = np.minimum(found[f"plane/{name}"], highest)
        panel.plot_surface(x, y, height, cmap="viridis", vmin=lowest, vmax=highest)
        panel.set(title=method, zlim=(lowest, highest))
    return figure


def draw_sharpness(measures: Mapping[str, list[Measures]]) -> Figure:
    """Draws the largest eigenvalue of the Hessian of each loss, one point per seed."""
    figure, axes = make_panels(2, "Largest eigenvalue of the Hessian (lower: flatter)")
    for panel, name in zip(axes, ("task", "distill"), strict=True):
        for i, found in enumerate(measures.values()):
            values = [one[f"eigenvalues/{name}"][0] for one in found]
            panel.plot(values, [i] * len(values), "o", color=f"C{i}", ms=4, alpha=0.6)
            panel.plot(np.mean(values), i, "|", color=f"C{i}", ms=16)
        panel.set_yticks(range(len(measures)), list(measures))
        panel.set(title=f"{name} loss", xlim=(0, None))
        panel.invert_yaxis()
    return figure


def draw_correlations(measures: Mapping[str, Measures]) -> Figure:
    """Draws the distance of class-mean logits from the teacher's (DOT, Fig. 7)."""
    figure, axes = _panels(len(measures), "|Student - teacher|, mean logits by class")
    for panel, (method, found) in zip(axes, measures.items(), strict=False):
        off = logit_difference(found)
        drawn = panel.imshow(off / MAX_DIFFERENCE, cmap="PuBuGn", vmin=0, vmax=1)
        panel.set_title(f"{method}\nmax {off.max():.2f}, mean {off.mean():.2f}")
        panel.set(xlabel="logit", ylabel="class", xticks=[], yticks=[])
    figure.colorbar(drawn, ax=list(axes), label=f"difference / {MAX_DIFFERENCE:g}")
    return figure


def logit_difference(found: Measures) -> np.ndarray:
    """Returns absolute differences of mean logits, ``[c, c]``, with a zero diagonal."""
    off = np.abs(found["logits/student"] - found["logits/teacher"])
    return off * (1 - np.eye(len(off)))


def draw_buffers(histories: Mapping[str, History]) -> Figure:
    """Draws the cosine of each momentum buffer with the update (DOT, Fig. 5)."""
    figure, axes = make_panels(2, "Cosine of each momentum buffer with the update")
    for panel, name in zip(axes, ("task", "distill"), strict=True):
        draw_lines(panel, dict(histories), f"train/buffer/alignment/{name}")
        panel.set(title=f"buffer of the {name} loss", ylim=(-1.05, 1.05))
        panel.axhline(0, color="0.6", lw=0.8)
    add_legend(figure, axes)
    return figure


def draw_conflict(histories: Mapping[str, History]) -> Figure:
    """Draws the share of steps in conflict and the dominance (DTO-KD, Fig. 1)."""
    figure, axes = make_panels(
        2, "Gradients of all parameters, mean over the steps of an epoch"
    )
    draw_lines(axes[0], dict(histories), "train/gradient/conflict/distill", scale=100)
    axes[0].set(title="steps with a conflict (%)", ylim=(-3, 103))
    draw_lines(axes[1], dict(histories), "train/gradient/dominance/distill")
    axes[1].set(title="norm: distillation / task (dominance)", yscale="log")
    axes[1].axhline(1, color="0.6", lw=0.8)
    add_legend(figure, axes)
    return figure


def draw_alpha(points: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draws both final losses by method or weight (DOT, Fig. 6).

    Args:
        points: Task and distillation losses of all seeds by label.
    """
    figure, (panel,) = make_panels(1, "Losses on the training set after the last epoch")
    for i, (label, (task, distill)) in enumerate(points.items()):
        panel.plot(task, distill, "o", color=f"C{i}", ms=3, alpha=0.4)
        panel.plot(task.mean(), distill.mean(), "D", color=f"C{i}", label=label)
    panel.set(
        xlabel="task loss", ylabel="distillation loss", xscale="log", yscale="log"
    )
    for axis in (panel.xaxis, panel.yaxis):  # the range may be less than a decade
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    add_legend(figure, np.array([panel]))
    return figure


def draw_parabolas(shown: int = 12) -> Figure:
    """Draws the predicted decrease for random gradients (Kim et al., Fig. 2)."""
    figure, axes = make_panels(2, "Predicted decrease of the weighted loss over lambda")
    for panel, (kind, angles) in zip(axes, kim.ANGLES.items(), strict=True):
        grams, _ = kim.sample_grams(jax.random.key(0), SAMPLE, angles)
        for row in kim.decreases(grams[:shown], LAMBDAS):
            panel.plot(LAMBDAS, row, lw=1)
        share = kim.interior_share(grams)
        panel.set_title(f"{kind} angles: {share:.1%} of the vertices in (0, 1)")
        panel.set(xlabel="lambda", ylabel="D")
    return figure


def draw_lambda(history: History, title: str, epochs: int = 5) -> Figure:
    """Draws the parabola of a run during training, and the lambda that was used.

    Args:
        history: Metrics of a run with gradient diagnostics after each epoch.
        title: Name of the run.
        epochs: Number of parabolas.
    """
    figure, axes = make_panels(
        2, f"Decrease over lambda, {title}, last batch of an epoch"
    )
    norms = [history[f"gradient/norm/{name}"][0] for name in ("task", "distill")]
    cosine = history["gradient/cosine/distill"][0]
    number = history["epoch"][0]
    for i in np.unique(np.linspace(0, len(number) - 1, epochs).astype(int)):
        b, a = norms[0][i] ** 2, norms[1][i] ** 2
        c = cosine[i] * norms[0][i] * norms[1][i]
        height = (
            a * LAMBDAS**2 + b * (1 - LAMBDAS) ** 2 + 2 * c * LAMBDAS * (1 - LAMBDAS)
        )
        color = mpl.colormaps["viridis"](i / max(len(number) - 1, 1))
        axes[0].plot(
            LAMBDAS, height / height.max(), color=color, label=f"{number[i]:.0f}"
        )
    axes[0].legend(title="epoch", frameon=False)
    axes[0].set(xlabel="lambda", ylabel="D / max D")
    axes[1].fill_between(
        number,
        history["gradient/lambda/low"][0],
        history["gradient/lambda/high"][0],
        color="C2",
        alpha=0.15,
        label="neither loss rises",
    )
    vertex = np.clip(history["gradient/lambda/vertex"][0], 0, 1)
    axes[1].plot(number, vertex, color="C0", label="vertex, clipped")
    if "train/weight/distill" in history:
        weights = [history[f"train/weight/{name}"][0] for name in ("task", "distill")]
        axes[1].plot(number, weights[1] / sum(weights), color="C3", label="used")
    axes[1].set(xlabel="epoch", ylabel="lambda", ylim=(-0.03, 1.03))
    axes[1].legend(frameon=False)
    return figure


def _panels(count: int, title: str, **options: str) -> tuple[Figure, np.ndarray]:
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.8 * columns + 0.8, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=options).ravel()
    for panel in axes[count:]:
        panel.remove()
    figure.suptitle(title)
    return figure, axes[:count]
