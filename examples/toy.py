"""Runs every method on the two-dimensional toy problem of FAMO, from five starts.

    python -m examples.toy
    python -m examples.toy --methods dto_kd min_norm

Draws all paths on the contours of the mean loss and prints how far each method ends
from the Pareto set: Adam, 50,000 steps, learning rate 1e-3. Measured with all methods:
one minute of one CPU core; ``linear`` arrives from 4 of 5 starts, ``dto_kd`` from 5.

The problem has two valleys, a cliff between them and gradients of very different
length, so that descent on the mean gets stuck from one of the starts. Its Pareto set is
the segment ``x2 = -8.36, |x1| <= 7.1``; in the middle both losses fall equally.

References:
    Liu et al., `FAMO <https://arxiv.org/abs/2306.03792>`_, NeurIPS 2023, section 5.1;
    Liu et al., `CAGrad <https://arxiv.org/abs/2110.14048>`_, NeurIPS 2021
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import kdopt
from kdopt import scalarizers

STARTS = np.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]])
PARETO_X2, PARETO_END = -8.36, 7.1
MIN_LOSSES = (-2.1, -21.0)

BALANCERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: kdopt.linear([0.5, 0.5]),
    "min_norm": kdopt.min_norm,
    "pcgrad": kdopt.pcgrad,
    "gradvac": kdopt.gradvac,
    "cagrad": kdopt.cagrad,
    "imtl_g": kdopt.imtl_g,
    "nash_mtl": kdopt.nash_mtl,
    "fairgrad": kdopt.fairgrad,
    "aligned_mtl": kdopt.aligned_mtl,
    "upgrad": kdopt.upgrad,
    "dual_proj": kdopt.dual_proj,
    "conflict_free": kdopt.conflict_free,
    "constrained": kdopt.constrained,
    "pcd": kdopt.pcd,
    "pcd, relax": lambda: kdopt.pcd(on_conflict="relax"),
    "pcd, drop": lambda: kdopt.pcd(on_conflict="drop"),
    "grad_cosine": kdopt.grad_cosine,
    "bloop": kdopt.bloop,
    "equal_norms": kdopt.equal_norms,
    "sdmgrad": kdopt.sdmgrad,
    "modo": kdopt.modo,
    "moco": kdopt.moco,
    "excess_mtl": kdopt.excess_mtl,
    "graddrop": lambda: kdopt.graddrop(key=jax.random.key(0)),
    "random_weights": lambda: kdopt.random_weights(key=jax.random.key(0)),
    "dto_kd": lambda: kdopt.dto_kd(min_losses=MIN_LOSSES),
    "dto_kd, no simplex": lambda: kdopt.dto_kd(min_losses=MIN_LOSSES, simplex=False),
    "lambda gradual": lambda: kdopt.dynamic_lambda(policy="gradual"),
    "lambda safe": lambda: kdopt.dynamic_lambda(policy="safe", lambda_=0.5),
    "lambda norm_balance": lambda: kdopt.dynamic_lambda(policy="norm_balance"),
    "vertex, no simplex": lambda: kdopt.from_weights(_vertex),
}
SCALARIZERS: dict[str, Callable[[], Any]] = {
    "famo": lambda: kdopt.famo(min_losses=MIN_LOSSES, weight_decay=0.0),
    "dto_kd_amortized": lambda: kdopt.dto_kd_amortized(
        min_losses=MIN_LOSSES, weight_decay=0.0
    ),
    "uncertainty": scalarizers.uncertainty,
    "imtl_l": scalarizers.imtl_l,
    "stch": scalarizers.stch,
    "softadapt": scalarizers.softadapt,
    "cosmos": scalarizers.cosmos,
    "pbi": scalarizers.pbi,
    "slaw": kdopt.slaw,
    "relobralo": kdopt.relobralo,
    "random scalars": lambda: scalarizers.random_weighting(key=jax.random.key(0)),
}
LEFT_OUT = (
    "db_mtl, dwa, geometric_mean, gradnorm, magnitude_match and ferero need positive "
    "losses, which these are not; krum and trimmed_mean need three gradients, "
    "reference_aligned and hypergradient a reference, dynamic_barrier and lagrangian a "
    "limit; dot and streams are momenta, multi_adam and mt_adam optimisers."
)


def _vertex(gram: jax.Array) -> jax.Array:
    """Computes the closed form without clipping, on raw gradients; it diverges."""
    second = kdopt.lambda_vertex(gram)
    return jnp.stack([1 - second, second])


def losses(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes both losses at a point ``[2]``, the first scaled by 0.1."""
    x1, x2 = x
    log_1 = jnp.log(jnp.maximum(jnp.abs(0.5 * (-x1 - 7) - jnp.tanh(-x2)), 5e-6)) + 6
    log_2 = jnp.log(jnp.maximum(jnp.abs(0.5 * (3 - x1) + jnp.tanh(-x2) + 2), 5e-6)) + 6
    bowl_1 = ((7 - x1) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    bowl_2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    # At 0 use the slope of the branch above 0; otherwise the second start never moves.
    up, down = jnp.tanh(x2 / 2), jnp.tanh(-x2 / 2)
    up, down = jnp.where(up >= 0, up, 0), jnp.where(down >= 0, down, 0)
    return 0.1 * (log_1 * up + bowl_1 * down), log_2 * up + bowl_2 * down


def paths(
    tx: optax.GradientTransformationExtraArgs, *, one_backward: bool, steps: int
) -> np.ndarray:
    """Runs a method from every start.

    Args:
        tx: Balancer before Adam, or scalarizer behind it.
        one_backward: Whether it is a scalarizer.
        steps: Number of steps, a multiple of 100.

    Returns:
        Every hundredth point, ``[starts, steps / 100 + 1, 2]``.
    """
    weighted = kdopt.value_and_weighted_grad(losses)
    exact = kdopt.value_and_grads(losses)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        x, state = carry
        if one_backward:
            values, grads = weighted(
                x, weights=lambda values: kdopt.loss_weights(state, values)
            )
        else:
            values, grads = exact(x)
        updates, state = tx.update(grads, state, x, values=values, value_fn=losses)
        return (optax.apply_updates(x, updates), state), None

    def hundred(carry: Any, _: None) -> tuple[Any, jax.Array]:
        carry, _ = jax.lax.scan(step, carry, length=100)
        return carry, carry[0]

    def path(start: jax.Array) -> jax.Array:
        carry = start, tx.init(start)
        points = jax.lax.scan(hundred, carry, length=steps // 100)[1]
        return jnp.concatenate([start[None], points])

    return np.asarray(jax.jit(jax.vmap(path))(jnp.asarray(STARTS, jnp.float32)))


def paths_of(name: str, *, steps: int, learning_rate: float = 1e-3) -> np.ndarray:
    """Computes the paths of a method by name, with Adam.

    Args:
        name: Of ``BALANCERS`` or ``SCALARIZERS``.
        steps: Number of steps, a multiple of 100.
        learning_rate: Of Adam.
    """
    adam, one_backward = optax.adam(learning_rate), name in SCALARIZERS
    method = (BALANCERS | SCALARIZERS)[name]()
    tx = optax.chain(*((adam, method) if one_backward else (method, adam)))
    return paths(tx, one_backward=one_backward, steps=steps)


def distance_to_pareto(points: np.ndarray) -> np.ndarray:
    """Returns the distance of points ``[..., 2]`` from the Pareto set."""
    outside = np.maximum(np.abs(points[..., 0]) - PARETO_END, 0)
    return np.hypot(outside, points[..., 1] - PARETO_X2)


def draw(runs: dict[str, np.ndarray]) -> Figure:
    """Draws one panel per method: contours of the mean loss, paths, the Pareto set."""
    columns = 6
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    axis = np.linspace(-10, 10, 200)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    first, second = jax.jit(jax.vmap(losses))(jnp.asarray(grid, jnp.float32))
    mean = np.asarray(10 * first + second).reshape(200, 200) / 2
    for panel in panels[len(runs) :]:
        panel.set_visible(False)
    for panel, (name, run) in zip(panels, runs.items(), strict=False):
        panel.contour(axis, axis, mean, levels=30, cmap="Greys", linewidths=0.4)
        panel.plot([-PARETO_END, PARETO_END], [PARETO_X2] * 2, color="0.3", lw=3)
        for i, points in enumerate(run):
            panel.plot(*points.T, color=f"C{i}", lw=1.2)
            panel.plot(*points[0], "o", color=f"C{i}", ms=3)
            panel.plot(*points[-1], "*", color=f"C{i}", ms=7)
        reached = int(np.sum(distance_to_pareto(run[:, -1]) < 0.3))
        panel.set_title(f"{name}: {reached}/5", fontsize=9)
        panel.set(xlim=(-10, 10), ylim=(-10, 10), xticks=[], yticks=[])
    return figure


def tabulate(runs: dict[str, np.ndarray]) -> Table:
    """Tabulates the final distances from the Pareto set, and the positions on it."""
    table = Table(caption=LEFT_OUT)
    table.add_column("method")
    table.add_column("on the Pareto set", justify="right")
    table.add_column("largest distance", justify="right")
    table.add_column("final x1 (— where not on it)", justify="right")
    for name, run in runs.items():
        ends = run[:, -1]
        distances = distance_to_pareto(ends)
        places = [
            f"{x:.2f}" if d < 0.3 else "—"
            for x, d in zip(ends[:, 0], distances, strict=True)
        ]
        reached = int(np.sum(distances < 0.3))
        table.add_row(name, f"{reached}/5", f"{distances.max():.2f}", "  ".join(places))
    return table


@dataclasses.dataclass(frozen=True)
class Toy:
    """Run every method on the toy problem of FAMO and draw all paths."""

    directory: Path = Path("runs/toy")
    """Folder of the figure and the table."""
    steps: int = 50_000
    """Steps of Adam, a multiple of 100."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    methods: tuple[str, ...] = (*BALANCERS, *SCALARIZERS)
    """Methods to run."""


def main(settings: Toy) -> dict[str, np.ndarray]:
    """Runs the methods, writes ``paths.png`` and ``table.txt``, prints the table.

    Raises:
        ValueError: If a method or the number of steps is wrong.
    """
    known = BALANCERS | SCALARIZERS
    for name in settings.methods:
        if name not in known:
            raise ValueError(f"unknown method {name!r}; choose {', '.join(known)}.")
    if settings.steps < 100 or settings.steps % 100:
        raise ValueError(f"steps must be a multiple of 100, got {settings.steps}.")
    steps, rate = settings.steps, settings.learning_rate
    runs = {
        name: paths_of(name, steps=steps, learning_rate=rate)
        for name in track(settings.methods, description="methods")
    }
    settings.directory.mkdir(parents=True, exist_ok=True)
    draw(runs).savefig(settings.directory / "paths.png", dpi=120)
    with (settings.directory / "table.txt").open("w") as file:
        Console(file=file, width=120).print(tabulate(runs))
    Console().print(tabulate(runs))
    return runs


if __name__ == "__main__":
    main(tyro.cli(Toy))
