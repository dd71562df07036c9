"""Checks every method of the tests' table: golden values, theorems, precision."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from benchmarks.accelerator._clock import Budget, Row
from benchmarks.accelerator._compare import on_host, relative, row, skipped
from tests import _asserts, _samplers
from tests._methods import GOLDEN_GRADS, GOLDEN_VALUES, METHOD, first_step

LEAST = 5e-5
"""Bound of the error in single precision, if the host's own error is smaller."""

SLACK = 8
"""Allowed multiple of the host's own error in single precision."""

MANY = 16
"""A number of losses at which products of K x K matrices reach the matrix units."""

Start = Callable[[str, int], Callable]


def measure(
    tiny: bool,
    budget: Budget,
    names: Sequence[str] = tuple(METHOD),
    start: Start = first_step,
) -> Iterator[Row]:
    """Yields rows for each method and number of losses.

    Args:
        tiny: Whether to check two methods on short gradients.
        budget: Available time.
        names: Rows of the tests' table.
        start: Makes the first step of a method, as in the tests.
    """
    if tiny:
        names = [n for n in names if n in ("min_norm", "dot")]
    length = 64 if tiny else 4096
    jobs = [(name, k) for name in names for k in _numbers(name, tiny)]
    jobs.sort(key=lambda job: job[1])  # those of two losses first
    with ThreadPoolExecutor(2 if tiny else 12) as pool:

        def check(job: tuple[str, int]) -> list[Row]:
            if not budget.left(keep=0.05):
                return [skipped("method", f"{job[0]}, K = {job[1]}")]
            return [*_single(*job, length, start), *_double(*job, start)]

        for rows in pool.map(check, jobs):
            yield from rows


def _numbers(name: str, tiny: bool) -> list[int]:
    """Returns the smallest number of losses, the largest of the tests, and many."""
    method = METHOD[name]
    chosen = {method.few} if tiny else {method.few, method.ks[-1]}
    if method.weighted and len(method.ks) > 1 and not method.scalarizer and not tiny:
        chosen.add(MANY)
    return sorted(chosen)


def _gradients(kind: str, k: int, length: int) -> np.ndarray:
    rng = np.random.default_rng([k, *kind.encode()])
    rows = rng.normal(size=(k, length)) * rng.uniform(0.5, 2, size=(k, 1))
    if kind == "conflicting":
        rows = rows - rows.mean(axis=0) + 0.1 * rng.normal(size=length)
    if kind == "near-opposite":
        line = rng.normal(size=length)
        rows = np.outer((-1.0) ** np.arange(k), line) + 0.03 * rows
    return rows.astype(np.float32).astype(np.float64)


def _single(name: str, k: int, length: int, start: Start) -> Iterator[Row]:
    """Compares single precision on device and host with double on the host."""
    values = _samplers.values(0, k)
    for kind in ("generic", "conflicting", "near-opposite"):
        label = f"{name}, K = {k}, {kind}"
        grads = _gradients(kind, k, length)
        try:
            with on_host(double=True):
                exact = start(name, k)(grads, values)[0]
            with on_host(double=False):
                near = start(name, k)(grads, values)
            got = start(name, k)(grads, values)
        except Exception as fault:  # a method that does not compile there fails
            note = f"{type(fault).__name__}: {fault}"[:150]
            yield row("single precision", label, np.inf, LEAST, note=note)
            continue
        host = relative(near[0], exact)
        # Single and double precision draw other numbers.
        drawn = "key" in METHOD[name].kwargs(k)
        yield row(
            "single precision",
            label,
            relative(got[0], near[0] if drawn else exact),
            1e-3 if drawn else max(LEAST, SLACK * host),
            host_error=host,
        )
        if "non_conflicting" in METHOD[name].claims:
            bound = max(1e-6, SLACK * _rise(*near, grads))
            yield row("no loss rises", label, _rise(*got, grads), bound)


def _rise(update: np.ndarray, weights: np.ndarray | None, grads: np.ndarray) -> float:
    """Returns the rise of a loss along the update, relative to the longest gradient."""
    size = 1.0 if weights is None else max(1.0, float(np.max(np.abs(weights))))
    falls = grads @ update.astype(np.float64)
    return float(np.max(-falls) / (size * np.max(np.sum(grads**2, axis=1))))


def _double(name: str, k: int, start: Start) -> Iterator[Row]:
    """Checks golden weights and the theorems of the tests, in double precision."""
    method = METHOD[name]
    if k not in method.ks:
        return
    with jax.enable_x64(True):
        run = start(name, k)
        if method.golden and k == 2:
            weights = run(GOLDEN_GRADS, GOLDEN_VALUES)[1]
            error = relative(weights, np.array(method.golden))
            yield row("golden", name, error, 1e-10)
        for claim in method.claims:
            if k < _asserts.LEAST_K.get(claim, 1):
                continue
            theorem, kinds = _asserts.CLAIMS[claim]
            for kind in kinds:
                yield _theorem(
                    theorem, run, f"{name}, K = {k}, {claim}, {kind}", kind, k
                )


def _theorem(theorem: Callable, run: Callable, label: str, kind: str, k: int) -> Row:
    try:
        theorem(run, _samplers.KINDS[kind](0, k), _samplers.values(0, k))
    except AssertionError as fault:
        note = " ".join(str(fault).split())[:150]
        return row("theorem", label, np.inf, 1.0, note=note)
    except Exception as fault:
        note = f"{type(fault).__name__}: {fault}"[:150]
        return row("theorem", label, np.inf, 1.0, note=note)
    return row("theorem", label, 0.0, 1.0)
