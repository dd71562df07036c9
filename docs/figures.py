"""Draws what each family of losses matches: python docs/figures.py."""

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kdopt import losses

NETWORKS = "teacher", "student"
COLORS = TEACHER, STUDENT = "#1f4e9c", "#c8501e"
NOTE, GREEN = "#444444", "#11713c"
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "mathtext.fontset": "cm",
}
CLASSES = ("cat", "dog", "fox", "car", "ship")
LOGITS = jnp.array([[6.0, 4.0, 3.0, -1.0, -2.0], [4.0, 0.5, 2.5, 1.0, -1.5]])
MOVES = np.array([[0.3, -0.2], [-0.2, 0.9], [-0.3, 0.1], [0.5, -0.8], [0.1, 0.5]])
POINTS = np.array([[0.6, -0.5], [2.4, 0.3], [1.6, 2.0], [-0.9, 1.7], [-1.8, -0.9]])
VECTORS = POINTS, 0.6 * POINTS + 0.5 * MOVES


def _soften(ax: Axes) -> None:
    ax.set_title("kd: probabilities at temperature 4")
    _bars(ax, list(np.asarray(jax.nn.softmax(LOGITS / 4))))
    sharp = np.asarray(jax.nn.softmax(LOGITS[0]))
    ax.plot(np.arange(5) - 0.2, sharp, "_", color="k", ms=12, label="teacher at 1")
    ax.legend(loc="upper right")


def _split(ax: Axes) -> None:
    ax.set_title("dkd, deepkd: two parts, target cat")
    parts = []
    for p in np.asarray(jax.nn.softmax(LOGITS / 4)):
        parts.append(np.concatenate([[p[0], 1 - p[0]], p[1:] / (1 - p[0])]))
    _bars(ax, parts, ("cat", "rest", *CLASSES[1:]))
    ax.axvline(1.5, color=NOTE, lw=1, ls=":")
    ax.text(0.5, 0.88, "TCKD", ha="center", color=NOTE)
    ax.text(3.5, 0.88, "NCKD", ha="center", color=NOTE)


def _standardize(ax: Axes) -> None:
    ax.set_title("kd_standardized: the shape alone")
    student = LOGITS[0] / 3 + jnp.array([0.2, -0.3, 0.3, 0.1, -0.3])
    for z, color, name in zip((LOGITS[0], student), COLORS, NETWORKS, strict=True):
        ax.plot(z, ":", color=color, marker=".", label=f"{name}, raw")
        shape = losses.standardize_logits(z[None])[0]
        ax.plot(shape, color=color, marker="o", label=f"{name}, standardised")
    ax.set_xticks(range(5), CLASSES)
    ax.set_ylabel("logit")
    ax.set_ylim(-2.5, 10.5)
    ax.legend(loc="upper right")


def _correlate(ax: Axes) -> None:
    ax.set_title("dist, mlkd: rows and columns")
    rng = np.random.default_rng(4)
    predictions = np.asarray(jax.nn.softmax(jnp.asarray(2 * rng.normal(size=(6, 5)))))
    ax.imshow(predictions, cmap="Blues", aspect="auto")
    frame = {"fill": False, "lw": 2.5, "zorder": 3, "clip_on": False}
    ax.add_patch(Rectangle((-0.5, 1.5), 5, 1, ec=STUDENT, **frame))
    ax.add_patch(Rectangle((2.5, -0.5), 1, 6, ec=GREEN, **frame))
    ax.set_xticks(range(5), CLASSES)
    ax.set_yticks([])
    ax.set_ylabel("examples of the batch", labelpad=8)
    ax.text(4.7, 2, "over the\nclasses", color=STUDENT, va="center", clip_on=False)
    ax.text(4.7, 4.6, "over the\nexamples", color=GREEN, va="center", clip_on=False)


def _attend(ax: Axes) -> None:
    ax.set_title("at: activity of 12 and of 4 channels")
    rows, columns = np.mgrid[:8, :8] / 7.0
    maps = []
    for centre, channels, seed in (((0.35, 0.4), 12, 0), ((0.6, 0.55), 4, 1)):
        square = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
        bump = np.exp(-9 * square)[..., None]
        noise = np.random.default_rng(seed).normal(size=(8, 8, channels))
        maps.append(np.mean((bump * (1 + 0.4 * noise)) ** 2, axis=-1))
    _side_by_side(ax, maps, cmap="magma")


def _partial_distance(ax: Axes) -> None:
    ax.set_title("ofd: cost of one unit, margin $m = -1$")
    ours = jnp.linspace(-3, 3, 121)

    def cost(ours, theirs):
        maps = [[x.reshape(1, 1, 1, 1)] for x in (ours, theirs)]
        return losses.ofd(*maps, [jnp.array([-1.0])])

    for theirs, style in ((1.5, "-"), (-0.5, "--"), (-2.0, ":")):
        costs = jax.vmap(cost, (0, None))(ours, jnp.array(theirs))
        ax.plot(ours, costs, style, color=TEACHER, lw=2, label=f"teacher ${theirs:g}$")
    ax.set_xlabel("unit of the student")
    ax.set_ylim(-0.5, 12)
    ax.legend(loc="upper center")


def _pyramid(ax: Axes) -> None:
    ax.set_title("hcl: the gap at four resolutions")
    gap = np.random.default_rng(0).normal(size=(8, 8)) + np.linspace(-1, 1.5, 8)
    left = 0.0
    for size in (8, 4, 2, 1):
        cell = 8 // size
        pooled = gap.reshape(size, cell, size, cell).mean((1, 3))
        width = 3.2 * (0.5 + size / 16)
        place = left, left + width, 0, width
        ax.imshow(pooled, cmap="RdBu", vmin=-2.5, vmax=2.5, extent=place)
        ax.text(left + width / 2, -0.5, rf"{size}$\times${size}", ha="center", va="top")
        left += width + 0.5
    ax.set_xlim(-0.2, left)
    ax.set_ylim(-1.4, 3.6)
    ax.axis("off")


def _direct(ax: Axes) -> None:
    ax.set_title("nd: direction and length")
    mean, teacher = jnp.array([[1.0, 0.35]]), jnp.array([[0.8, 1.1]])
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-2, 2.5, 46)] * 2), -1).reshape(-1, 2)

    def loss(x):
        return losses.nd(x[None], teacher, jnp.array([0]), mean)

    heights = np.asarray(jax.vmap(loss)(grid)).reshape(46, 46)
    x, y = np.asarray(grid).T.reshape(2, 46, 46)
    ax.contourf(x, y, heights, 12, cmap="Greys", vmax=4)
    some = np.s_[4::9, 4::9]
    slopes = np.asarray(jax.vmap(jax.grad(loss))(grid)).reshape(46, 46, 2)
    ax.quiver(
        x[some], y[some], *np.moveaxis(-slopes[some], -1, 0), color=STUDENT, width=0.009
    )
    circle = np.linspace(0, 2 * np.pi, 100)
    length = float(jnp.linalg.norm(teacher))
    ax.plot(length * np.cos(circle), length * np.sin(circle), color=TEACHER, lw=1)
    _arrow(ax, (0, 0), np.asarray(teacher)[0], TEACHER)
    _arrow(ax, (0, 0), np.asarray(mean)[0] / np.linalg.norm(mean), "k")
    ax.text(0.75, 1.3, "$f^t$", color=TEACHER, fontsize=12)
    ax.text(0.85, -0.1, "$e_y$", fontsize=12)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])


def _neighbours(ax: Axes) -> None:
    ax.set_title("pkt: who is whose neighbour")
    images = []
    for x in VECTORS:
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
        near = 1 + x @ x.T / lengths / lengths.T
        images.append(near / near.sum(1, keepdims=True))
    _side_by_side(ax, images)


def _similarities(ax: Axes) -> None:
    ax.set_title("sp: rows of the Gram matrix")
    grams = [x @ x.T for x in VECTORS]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in grams]
    _side_by_side(ax, rows, cmap="RdBu", vmin=-1, vmax=1)


def _relate(ax: Axes, network: int) -> None:
    name, color, x = NETWORKS[network], COLORS[network], VECTORS[network]
    ax.set_title(f"rkd: distances and angles, {name}")
    for i, a in enumerate(x):
        for b in x[:i]:
            ax.plot(*np.stack([a, b]).T, color="#bbbbbb", lw=1, zorder=0)
    vertex, one, two = x[0], x[1], x[3]
    for end in (one, two):
        ax.plot(*np.stack([vertex, end]).T, color=color, lw=2)
    angles = [np.arctan2(*(end - vertex)[::-1]) for end in (one, two)]
    turn = np.linspace(angles[0], angles[1], 30)
    radius = 0.25 * np.linalg.norm(one - vertex)
    ax.plot(
        vertex[0] + radius * np.cos(turn), vertex[1] + radius * np.sin(turn), color="k"
    )
    ax.plot(*x.T, "o", color=color, ms=8)
    for name, point in zip("ijlkm", x, strict=True):
        offset = {"i": (8, -14), "k": (-18, 4), "m": (8, -14)}.get(name, (8, 4))
        ax.annotate(f"${name}$", point, offset, textcoords="offset points", fontsize=12)
    ax.set_aspect("equal")
    ax.margins(0.2)
    ax.axis("off")


def _contrast(ax: Axes) -> None:
    ax.set_title("crd: one anchor, the other's memory")
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="#bbbbbb", lw=1, zorder=0)
    angles = np.random.default_rng(1).uniform(1.3, 5.9, 22)
    ax.plot(np.cos(angles), np.sin(angles), "x", color=NOTE)
    anchor, positive = 0.15, 0.75
    _arrow(ax, (0, 0), (np.cos(anchor), np.sin(anchor)), STUDENT)
    ax.plot(np.cos(positive), np.sin(positive), "o", color=TEACHER, ms=9)
    ax.text(1.08, 0.1, "$v^s$", color=STUDENT, fontsize=12)
    ax.text(0.8, 0.76, "$m^t_0$", color=TEACHER, fontsize=12)
    ax.text(0, -0.4, "$m^t_k$, other classes", color=NOTE, ha="center")
    ax.set_aspect("equal")
    ax.set_xlim(-1.3, 1.5)
    ax.axis("off")


def _score(ax: Axes) -> None:
    ax.set_title("crd: cost of a score, $K$ = 16384")
    cosines = np.linspace(-1, 1, 201)
    # Z as if the scores of the memory had mean 0, as random vectors have.
    p = np.exp(cosines / 0.07) / (50000 * np.exp(0.5 / (128 * 0.07**2)))
    noise = 16384 / 50000
    ax.plot(cosines, np.log1p(noise / p), color=TEACHER, lw=2, label="positive")
    negatives = 16384 * np.log1p(p / noise)
    ax.plot(cosines, negatives, "--", color=NOTE, label="$K$ equal negatives")
    ax.set_xlabel("cosine with the anchor")
    ax.set_ylim(0, 20)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.1))


def _bars(ax: Axes, pair: list[np.ndarray], names: tuple[str, ...] = CLASSES) -> None:
    places = np.arange(len(names))
    for shift, heights, name, color in zip(
        (-0.2, 0.2), pair, NETWORKS, COLORS, strict=True
    ):
        ax.bar(places + shift, heights, 0.38, color=color, label=name)
    ax.set_xticks(places, names)
    ax.set_ylim(0, 1)


def _side_by_side(ax: Axes, pair: list[np.ndarray], **options: Any) -> None:
    for left, image, name in zip((0, 1.15), pair, NETWORKS, strict=True):
        ax.imshow(image, extent=(left, left + 1, 0, 1), **{"cmap": "Blues"} | options)
        ax.text(left + 0.5, -0.06, name, ha="center", va="top", fontsize=9)
    ax.set_xlim(-0.05, 2.2)
    ax.set_ylim(-0.25, 1.05)
    ax.axis("off")


def _arrow(ax: Axes, start, end, color: str) -> None:
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2}
    )


FAMILIES = {
    "logits": (_soften, _split, _standardize, _correlate),
    "features": (_attend, _partial_distance, _pyramid, _direct),
    "relations": (
        functools.partial(_relate, network=0),
        functools.partial(_relate, network=1),
        _neighbours,
        _similarities,
    ),
    "contrastive": (_contrast, _score),
}
"""For each family what the panels of its figure show."""


def main(directory: Path) -> None:
    """Writes every figure as losses-FAMILY.png, legible at 700 pixels."""
    with mpl.rc_context(STYLE):
        for family, panels in FAMILIES.items():
            rows = len(panels) // 2
            figure = Figure(figsize=(7, 2.9 * rows), layout="constrained")
            axes = figure.subplots(rows, 2).flat
            for panel, ax in zip(panels, axes, strict=True):
                panel(ax)
            figure.savefig(directory / f"losses-{family}.png", dpi=200)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
