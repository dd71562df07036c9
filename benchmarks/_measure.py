"""Medians of ratios of interleaved calls, which noise and load affect alike."""

import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], object]


def seconds(calls: Mapping[str, Call], rounds: int) -> dict[str, np.ndarray]:
    """Times each call in each round, in turn, after two warm-up rounds."""
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
    """Returns the median over rounds of each time relative to that of the bound."""
    return {name: float(np.median(t / times[bound])) for name, t in times.items()}


def read_once(grads: tuple) -> jax.Array:
    """Computes the bound: one pass over all gradients, one addition per number."""
    total = jnp.zeros(())
    for leaves in zip(*map(jax.tree.leaves, grads), strict=True):
        total += jnp.sum(sum(leaf.astype(jnp.float32) for leaf in leaves))
    return total


def compile_timed(fn: Callable, *args: object, **options: object) -> tuple:
    """Compiles a program; returns it and the seconds to trace, lower and compile."""
    began = time.perf_counter()
    program = jax.jit(fn, **options).lower(*args).compile()
    return program, time.perf_counter() - began
