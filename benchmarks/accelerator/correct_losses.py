"""Compares value and gradient of every loss of the tests' table with the host's."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator._clock import Budget, Row
from benchmarks.accelerator._compare import on_host, relative, row, skipped
from tests.losses._table import CASES, Case

LEAST = 2e-5
"""Bound of the error in single precision, if the host's own error is smaller."""

SLACK = 16
"""Allowed multiple of the host's own error in single precision."""


def measure(
    tiny: bool, budget: Budget, cases: Sequence[Case] = tuple(CASES)
) -> Iterator[Row]:
    """Yields two rows for each loss, at the default precision of matrix products."""
    chosen = cases[:2] if tiny else cases
    with ThreadPoolExecutor(2 if tiny else 12) as pool:
        for rows in pool.map(lambda case: _check(case, tiny, budget), chosen):
            yield from rows


def sample(kind: str, seed: int, tiny: bool) -> Any:
    """Makes a batch large enough that products use the matrix units."""
    rng = np.random.default_rng(seed)
    batch = 8 if tiny else 128
    if kind == "logits":
        return 2 * rng.normal(size=(batch, 10 if tiny else 100))
    if kind == "vectors":
        return rng.normal(size=(batch, 16 if tiny else 128))
    sides = ((4, 8), (2, 8)) if tiny else ((8, 64), (4, 128))
    return tuple(rng.normal(size=(batch, s, s, c)) for s, c in sides)


def _check(case: Case, tiny: bool, budget: Budget) -> list[Row]:
    """Checks value and gradient; for some losses the latter is far harder."""
    if not budget.left(keep=0.45):
        return [skipped("loss", case.name)]
    student, teacher = (sample(case.kind, seed, tiny) for seed in (0, 1))
    batch = len(jax.tree.leaves(student)[0])
    labels, weights = np.arange(batch) % 10, np.linspace(0.5, 1.5, batch)
    fn = jax.jit(jax.value_and_grad(case.call))

    def run(dtype: str) -> Any:
        cast = jax.tree.map(lambda x: x.astype(dtype), (student, teacher, weights))
        out = fn(cast[0], cast[1], labels.astype(np.int32), cast[2])
        return jax.tree.map(np.asarray, out)

    try:
        with on_host(double=True):
            exact = run("float64")
        with on_host(double=False):
            host = run("float32")
        device = run("float32")
    except Exception as fault:  # a loss that does not compile there is a failure
        note = f"{type(fault).__name__}: {fault}"[:150]
        return [row("loss", case.name, np.inf, LEAST, note=note)]
    rows = []
    for part, got, near, goal in zip(
        ("value", "gradient"), device, host, exact, strict=True
    ):
        own = relative(near, goal)
        bound = max(LEAST, SLACK * own)
        name = f"{case.name}, {part}"
        error = relative(got, goal)
        rows.append(row("loss", name, error, bound, host_error=own))
    return rows
