"""Errors against a reference of higher precision."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator._clock import Row


def wide(tree: Any) -> list[np.ndarray]:
    """Returns the leaves in double precision on the host."""
    return [np.asarray(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]


def relative(got: Any, exact: Any) -> float:
    """Returns the largest relative error of a leaf in norm; infinite if not finite."""
    errors = [0.0]
    for ours, theirs in zip(wide(got), wide(exact), strict=True):
        scale = np.linalg.norm(theirs)
        error = np.linalg.norm(ours - theirs) / (scale if scale > 0 else 1.0)
        errors.append(float(error) if np.isfinite(error) else np.inf)
    return max(errors)


def row(check: str, name: str, error: float, bound: float, **more: Any) -> Row:
    """Makes the row of one check; NaN does not pass."""
    return {
        "check": check,
        "name": name,
        "error": error,
        "bound": bound,
        "ok": bool(error <= bound),
        **more,
    }


def skipped(check: str, name: str) -> Row:
    """Makes the row of a check for which no time was left."""
    return {"check": check, "name": name, "error": 0.0, "bound": 1.0, "ok": False} | {
        "skipped": True
    }


@contextlib.contextmanager
def on_host(*, double: bool) -> Iterator[None]:
    """Computes on the host, in double precision or in that of the device."""
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(double):
        yield
