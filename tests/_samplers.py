"""Gradients sampled by kind: each function proves that its matrix is of that kind.

A sampler maps ``(seed, k)`` to a matrix ``[k, DIM]`` whose rows are the gradients, in
float64 numpy, so that a test chooses the dtype. ``trees`` turns a matrix into pytrees.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

DIM = 6


def _rng(seed: int, kind: str) -> np.random.Generator:
    return np.random.default_rng([seed, *kind.encode()])


def generic(seed: int, k: int) -> np.ndarray:
    """Independent normal entries: of full rank almost surely, as k <= DIM."""
    return _rng(seed, "generic").normal(size=(k, DIM))


def conflicting(seed: int, k: int) -> np.ndarray:
    """Every pair has a negative inner product.

    With ``e_i`` orthonormal and m their mean, ``<e_i - m, e_j - m> = -1/k`` for
    ``i != j``; positive lengths keep the sign. A part of 0.1 along a common direction
    orthogonal to all ``e_i`` makes the rows independent, and adds 0.01 < 1/k.
    """
    rng = _rng(seed, "conflicting")
    basis = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    frame, common = basis[:k], basis[k]
    rows = frame - frame.mean(axis=0) * (k > 1) + 0.1 * common
    return rows * rng.uniform(0.5, 3, size=(k, 1))


def parallel(seed: int, k: int) -> np.ndarray:
    """Positive multiples ``1, 2, ..., k`` of one vector: all cosines are 1."""
    row = _rng(seed, "parallel").normal(size=DIM)
    return np.outer(1 + np.arange(k), row)


def opposite(seed: int, k: int) -> np.ndarray:
    """One vector and negative multiples of it: stationary, as opposite rows cancel."""
    row = _rng(seed, "opposite").normal(size=DIM)
    return np.outer([1, *(-1 - 0.5 * np.arange(k - 1))], row)


def equal(seed: int, k: int) -> np.ndarray:
    """The same row k times: every convex combination is that row."""
    return np.tile(_rng(seed, "equal").normal(size=DIM), (k, 1))


def zero_task(seed: int, k: int) -> np.ndarray:
    """A generic matrix whose first row is zero: the task loss has converged."""
    return generic(seed, k) * (np.arange(k) > 0)[:, None]


def zero_distill(seed: int, k: int) -> np.ndarray:
    """A generic matrix whose last row is zero: that distillation has converged."""
    return generic(seed, k) * (np.arange(k) < k - 1)[:, None]


def all_zero(seed: int, k: int) -> np.ndarray:
    """All zeros."""
    del seed
    return np.zeros((k, DIM))


def rank_deficient(seed: int, k: int) -> np.ndarray:
    """Rank ``max(1, k - 1)``: a product through that many dimensions."""
    rng, rank = _rng(seed, "rank_deficient"), max(1, k - 1)
    return rng.normal(size=(k, rank)) @ rng.normal(size=(rank, DIM))


def strongly_stationary(seed: int, k: int) -> np.ndarray:
    """Positive weights cancel the rows: the last is minus a positive sum of the others.

    For one loss that sum is empty, and the gradient zero.
    """
    rng = _rng(seed, "strongly_stationary")
    rows = rng.normal(size=(k - 1, DIM))
    return np.vstack([rows, -rng.uniform(0.5, 2, size=k - 1) @ rows])


def weakly_stationary(seed: int, k: int) -> np.ndarray:
    """Non-negative weights cancel the rows, positive ones do not (for k >= 3).

    Rows 0 and 1 are v and -2v, so weights ``(2, 1, 0, ...)`` cancel. Every other row
    has a component p along a direction orthogonal to v, so a sum with positive weights
    has a positive part along p. For k <= 2 this is ``opposite``.
    """
    rng = _rng(seed, "weakly_stationary")
    v, p = np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T
    rows = np.vstack([v, -2 * v, p + np.outer(rng.normal(size=max(k - 2, 0)), v)])
    return rows[:k] if k <= 2 else rows


def tiny(seed: int, k: int) -> np.ndarray:
    """Generic, each row of norm 1e-18."""
    rows = generic(seed, k)
    return 1e-18 * rows / np.linalg.norm(rows, axis=1, keepdims=True)


def huge(seed: int, k: int) -> np.ndarray:
    """Generic, each row of norm 1e18."""
    return 1e36 * tiny(seed, k)


def mixed_scales(seed: int, k: int) -> np.ndarray:
    """Generic, with norms that fall from 1e18 to 1e-18."""
    return tiny(seed, k) * np.geomspace(1e36, 1, k)[:, None]


Sampler = Callable[[int, int], np.ndarray]

KINDS: dict[str, Sampler] = {
    sampler.__name__: sampler
    for sampler in (
        generic,
        conflicting,
        parallel,
        opposite,
        equal,
        zero_task,
        zero_distill,
        all_zero,
        rank_deficient,
        strongly_stationary,
        weakly_stationary,
        tiny,
        huge,
        mixed_scales,
    )
}

EXTREME = ("tiny", "huge", "mixed_scales")
"""Kinds whose products need the range of float32: not for half precision."""


def values(seed: int, k: int) -> np.ndarray:
    """Loss values in [0.5, 3]."""
    return _rng(seed, "values").uniform(0.5, 3, size=k)


def tree(row: np.ndarray, dtype=None) -> dict:
    """A nested tree of DIM numbers, with a None and a tuple in it."""
    w, one, number = (
        jnp.asarray(x, dtype) for x in (row[:4].reshape(2, 2), row[4:5], row[5, ...])
    )
    return {"layer": {"w": w, "none": None}, "rest": (one, number)}


def trees(matrix: np.ndarray, dtype=None) -> tuple[dict, ...]:
    """One tree per row."""
    return tuple(tree(row, dtype) for row in matrix)
