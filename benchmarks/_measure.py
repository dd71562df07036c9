"""Medians of ratios of interleaved calls: noise and load hit all alike."""

import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], object]


def seconds(calls: Mapping[str, Call], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call in each round, in turn, after two that do not count."""
    rows = []
    for _ in range(rounds + 2):
        row = []
        for call in calls.values():
            began = time.perf_counter()
            jax.block_until_ready(call())
            row.append(time.perf_counter() - began)
        rows.append(row)
    return dict(zip(calls, np.array(rows[2:]).T, strict=True))


def ratios(times: Mapping[str, np.ndarray], bound: str) -> dict[str, float]:
    """Median over rounds of each time over that of the bound."""
    return {name: float(np.median(t / times[bound])) for name, t in times.items()}


def read_once(grads: tuple) -> jax.Array:
    """The bound: one pass over all gradients, one addition for each number."""
    total = jnp.zeros(())
    for leaves in zip(*map(jax.tree.leaves, grads), strict=True):
        total += jnp.sum(sum(leaf.astype(jnp.float32) for leaf in leaves))
    return total


def compile_timed(fn: Callable, *args: object, **options: object) -> tuple:
    """The program, and the seconds it took to trace, lower and compile."""
    began = time.perf_counter()
    program = jax.jit(fn, **options).lower(*args).compile()
    return program, time.perf_counter() - began
