"""Draws the figures of a study."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kdlab.study.results import analysis
from kdlab.study.results.report import Results
from kdlab.study.trials.space import (
    Space,
    canonicalize,
    deduplicate,
    key,
    list_settings,
)


def draw(results: Results, folder: Path) -> Iterator[Path]:
    """Draws all figures and yields their paths."""
    folder.mkdir(exist_ok=True)
    figures: dict[str, Callable[[Results], Figure]] = {
        "main_effects": main_effects,
        "parallel": parallel_coordinates,
    }
    if len(results.spaces) > 1:
        figures["alpha"] = over_alpha
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    for name, make in figures.items():
        with mpl.rc_context(style):
            figure = make(results)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150)
        yield path


def _points(row: Sequence[float] | np.ndarray) -> tuple[float, float]:
    spread = analysis.Spread.of(100 * np.asarray(row))
    return spread.mean, spread.deviation


def main_effects(results: Results) -> Figure:
    """Draws the mean accuracy at each value of each knob, over all other knobs."""
    effects = analysis.main_effects(results.space, results.scores)
    figure = Figure(figsize=(2.2 * len(effects), 3), layout="constrained")
    axes = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
    for ax, (knob, effect) in zip(axes, effects.items(), strict=True):
        means, deviations = zip(*map(_points, effect.values()), strict=True)
        places = range(len(effect))
        ax.errorbar(places, means, deviations, marker="o", capsize=3, lw=1.2)
        ax.set_xticks(places, [_label(value) for value in effect])
        ax.set_xlim(-0.4, len(effect) - 0.6)
        ax.set_xlabel(knob)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("validation accuracy (%)")
    figure.suptitle("Main effects: mean over the other knobs, ± deviation over seeds")
    return figure


def parallel_coordinates(results: Results) -> Figure:
    """Draws every training of the grid as a line over its knobs, the best on top."""
    space = {k: v for k, v in results.space.items() if len(v) > 1}
    done = [
        p for p in deduplicate(list_settings(results.space)) if key(p) in results.scores
    ]
    means = np.array([100 * np.mean(results.scores[key(p)]) for p in done])
    norm = Normalize(means.min(), means.max())
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    ax = figure.subplots()
    rng = np.random.default_rng(0)
    for i in np.argsort(means):
        # Jitter, so that lines through the same value can be told apart.
        heights = [
            (space[knob].index(done[i][knob]) + 0.5) / len(space[knob])
            + rng.uniform(-0.06, 0.06)
            for knob in space
        ]
        top = i == np.argmax(means)
        color = mpl.colormaps["viridis"](norm(means[i]))
        ax.plot(heights, color=color, lw=2.5 if top else 0.9, alpha=1 if top else 0.6)
    for place, (knob, values) in enumerate(space.items()):
        ax.axvline(place, color="0.6", lw=0.8, zorder=0)
        for j, value in enumerate(values):
            height = (j + 0.5) / len(values)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
            ax.text(place + 0.03, height, _label(value), bbox=box, va="center")
        ax.text(place, 1.04, knob, ha="center")
    ax.set_axis_off()
    bar = ScalarMappable(norm, "viridis")
    figure.colorbar(bar, ax=ax, label="validation accuracy (%)")
    return figure


def over_alpha(results: Results) -> Figure:
    """Draws accuracy over alpha for each balancer, other knobs as recommended."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = figure.subplots()
    for i, (name, space) in enumerate(results.spaces.items()):
        sweep = analysis.alpha_sweep(space, results.scores)
        if not sweep:
            continue
        spreads = [_points(row) for row in sweep.values()]
        means, deviations = np.array(spreads).T
        style = {"color": f"C{i}", "label": _balancer(name, space)}
        ax.plot(list(sweep), means, marker="o", ms=3, **style)
        low, high = means - deviations, means + deviations
        ax.fill_between(list(sweep), low, high, color=f"C{i}", alpha=0.12)
    ax.set_xlabel("alpha: weight of the teacher")
    ax.set_ylabel("validation accuracy (%)")
    ax.set_title("Other knobs as recommended; band: deviation over seeds", fontsize=9)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _balancer(name: str, space: Space) -> str:
    has_alpha = "alpha" in canonicalize(list_settings(space)[0])
    return name if has_alpha else f"{name} (no alpha)"


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
