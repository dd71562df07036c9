"""Measures the cost of directional derivatives: python -m benchmarks.directions.

It answers two questions for an MLP with K losses on a shared trunk. What do the inner
products of K gradients with a reference gradient cost with K + 1 gradients, and with
one forward-mode pass along the reference? And what does each signal of
``dto_kd_amortized`` cost? FLOPs are counted by the compiler; times are medians of
ratios of interleaved calls. Prints two tables; takes a minute on two cores.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt
from benchmarks._measure import ratios, seconds

WIDTH, DEPTH, BATCH, REFERENCE, ROUNDS = 512, 4, 512, 64, 20
COUNTS = 2, 4, 8

Losses = Callable[[Any, jax.Array], tuple[jax.Array, ...]]


def problem(k: int) -> tuple[Losses, dict, jax.Array, jax.Array]:
    """Makes K losses of one network, parameters, a batch and a trusted batch."""
    rng = np.random.default_rng(0)
    params = {
        f"layer{n}": jnp.asarray(
            rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5, "float32"
        )
        for n in range(DEPTH)
    }
    targets = jnp.asarray(rng.normal(size=(k, WIDTH)), "float32")

    def losses_fn(params: dict, x: jax.Array) -> tuple[jax.Array, ...]:
        for weight in params.values():
            x = jnp.tanh(x @ weight)
        return tuple(jnp.mean((x - target) ** 2) for target in targets)

    batch = jnp.asarray(rng.normal(size=(BATCH, WIDTH)), "float32")
    return losses_fn, params, batch, batch[:REFERENCE]


def reference_steps(k: int) -> dict[str, Callable]:
    """Makes steps that compute the gradient and the inner products for its weights."""
    losses_fn, *_ = problem(k)

    def reference(params: Any, trusted: jax.Array) -> Any:
        return jax.grad(lambda p: losses_fn(p, trusted)[0])(params)

    def fixed(params: Any, x: jax.Array, trusted: jax.Array) -> Any:
        del trusted
        grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        return grad_fn(params, x, weights=jnp.full(k, 1 / k))

    def gradients(params: Any, x: jax.Array, trusted: jax.Array) -> Any:
        values, grads = kdopt.value_and_grads(losses_fn)(params, x)
        last = reference(params, trusted)
        slopes = jnp.stack([optax.tree.vdot(g, last) for g in grads])
        weights = jax.nn.softmax(slopes)
        return values, kdopt.combine(grads, weights), slopes

    def forward_mode(params: Any, x: jax.Array, trusted: jax.Array) -> Any:
        at = kdopt.linearize(losses_fn)(params, x)
        slopes = at.slopes(reference(params, trusted))
        return at.values, at.gradient(jax.nn.softmax(slopes)), slopes

    return {"fixed": fixed, "gradients": gradients, "forward mode": forward_mode}


def signal_steps() -> dict[str, Callable]:
    """Makes a step of ``dto_kd_amortized`` with each signal, for two losses."""
    losses_fn, *_ = problem(2)
    grad_fn = kdopt.value_and_weighted_grad(losses_fn)
    sgd = optax.sgd(0.1)

    def fixed(params: Any, x: jax.Array, trusted: jax.Array) -> Any:
        del trusted
        _, grads = grad_fn(params, x, weights=jnp.full(2, 0.5))
        return sgd.update(grads, sgd.init(params), params)

    def by(signal: str) -> Callable:
        tx = optax.chain(sgd, kdopt.dto_kd_amortized(signal=signal))

        def step(params: Any, x: jax.Array, trusted: jax.Array) -> Any:
            del trusted
            state, extras = tx.init(params), {}
            if signal == "directional":
                at = kdopt.linearize(losses_fn)(params, x)
                values = at.values
                grads = at.gradient(kdopt.loss_weights(state, values))
                extras["slopes_fn"] = at.slopes
            elif signal == "gram":
                values, each = kdopt.value_and_grads(losses_fn)(params, x)
                grads = kdopt.combine(each, kdopt.loss_weights(state, values))
                extras["gram"] = kdopt.gram(each)
            else:
                values, grads = grad_fn(
                    params, x, weights=lambda v: kdopt.loss_weights(state, v)
                )
                extras["value_fn"] = lambda p: losses_fn(p, x)
            return tx.update(grads, state, params, values=values, **extras)

        return step

    signals = "next", "same_batch", "directional", "gram"
    return {"fixed": fixed} | {signal: by(signal) for signal in signals}


def measure(steps: dict[str, Callable], k: int) -> tuple[dict, dict, dict]:
    """Returns FLOPs and times relative to fixed weights, and the results."""
    _, *args = problem(k)
    programs = {name: jax.jit(f).lower(*args).compile() for name, f in steps.items()}
    counted = {name: p.cost_analysis()["flops"] for name, p in programs.items()}
    calls = {name: lambda p=p: p(*args) for name, p in programs.items()}
    times = ratios(seconds(calls, ROUNDS), "fixed")
    flops = {name: count / counted["fixed"] for name, count in counted.items()}
    return flops, times, {name: call() for name, call in calls.items()}


def main() -> None:
    """Prints both tables."""
    print(
        "| K | K + 1 gradients, FLOPs | time | forward mode, FLOPs | time | "
        "largest difference |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for k in COUNTS:
        flops, times, out = measure(reference_steps(k), k)
        one, other = out["gradients"][2], out["forward mode"][2]
        error = float(jnp.max(jnp.abs(one - other)) / jnp.max(jnp.abs(one)))
        cells = [
            f"{flops[name]:.2f} | {times[name]:.2f}"
            for name in ("gradients", "forward mode")
        ]
        print(f"| {k} | {cells[0]} | {cells[1]} | {error:.0e} |", flush=True)
    print("\n| signal | FLOPs | time |\n|---|---:|---:|")
    flops, times, _ = measure(signal_steps(), 2)
    for name in flops:
        print(f"| `{name}` | {flops[name]:.2f} | {times[name]:.2f} |")


if __name__ == "__main__":
    main()
