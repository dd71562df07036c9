"""Quadratics over the non-negative orthant, against all supports."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _nonnegative
from tests import _samplers

pytestmark = pytest.mark.usefixtures("x64")

SOLVERS = {
    "by platform": _nonnegative.nonnegative_qp,
    "faces": _nonnegative.try_all_faces,
    "search": _nonnegative.search_active_set,
}
solve = jax.jit(_nonnegative.nonnegative_qp)
solve_face = jax.jit(_nonnegative.solve_face)


def unit_rows(kind, seed, k):
    """Rows of norm one, or zero: then the Hessian is their Gram matrix."""
    rows = _samplers.KINDS[kind](seed, k)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def problems(kind, k):
    """Hessians and linear terms in their range, so that a minimum exists."""
    for seed in range(6):
        rows = unit_rows(kind, seed, k)
        target = np.random.default_rng(seed).normal(size=_samplers.DIM)
        yield rows @ rows.T, rows @ target


def objective(hessian, linear, x):
    return 0.5 * x @ hessian @ x - linear @ x


def least(hessian, linear):
    """Returns the least value over all supports: the minimum is free on one of them."""
    k = len(linear)
    values = [0.0]
    for size in range(1, k + 1):
        for support in map(list, itertools.combinations(range(k), size)):
            x = np.zeros(k)
            block = hessian[np.ix_(support, support)]
            x[support] = np.linalg.pinv(block, rcond=1e-12) @ linear[support]
            if np.all(x >= 0):
                values.append(objective(hessian, linear, x))
    return min(values)


@functools.cache
def jitted(solver):
    return jax.jit(SOLVERS[solver])


KINDS = (
    *("generic", "conflicting", "parallel", "opposite", "equal", "zero_task"),
    *("all_zero", "rank_deficient", "strongly_stationary", "weakly_stationary"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("solver", ["faces", "search"])
def test_minimum(solver, kind, k):
    solve = jitted(solver)
    for hessian, linear in problems(kind, k):
        x = np.asarray(solve(hessian, linear))
        slope = hessian @ x - linear
        size = max(1, np.max(np.abs(linear)))
        # Karush-Kuhn-Tucker: sufficient, as the problem is convex
        assert np.all(x >= 0)
        assert np.all(slope >= -1e-12 * size), slope
        np.testing.assert_allclose(x * slope, 0, atol=1e-11 * size)
        expected = least(hessian, linear)
        np.testing.assert_allclose(objective(hessian, linear, x), expected, atol=1e-11)


def test_a_minimum_that_is_free_solves_the_system():
    hessian = np.array([[1.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(solve(hessian, np.array([2.0, 2.5])), [1, 2], rtol=1e-13)


def test_a_linear_term_that_is_negative_leaves_zero():
    np.testing.assert_array_equal(solve(np.eye(3), -np.arange(3.0)), 0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_solution_scales_with_the_linear_term(scale):
    hessian, linear = next(problems("generic", 4))
    expected = scale * np.asarray(solve(hessian, linear))
    np.testing.assert_allclose(solve(hessian, scale * linear), expected, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_single_precision_is_finite_on_nearly_parallel_rows(solver):
    rows = np.array([[1.0, 1e-5, 0.0], [1.0, -1e-5, 0.0], [1.0, 0.0, 1e-5]])
    hessian = jnp.asarray(rows @ rows.T, jnp.float32)
    linear = jnp.array([1.0, 1.0, 0.5], jnp.float32)
    x = jitted(solver)(hessian, linear)
    assert jnp.all(jnp.isfinite(x)) and jnp.all(hessian @ x >= linear - 1e-5)


def test_face():
    hessian, linear = next(problems("generic", 4))
    face = np.array([True, False, True, False])
    x = np.asarray(solve_face(hessian, linear, face))
    np.testing.assert_array_equal(x[~face], 0)
    np.testing.assert_allclose((hessian @ x)[face], linear[face], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_faces_and_search_agree_in_single_precision(kind):
    """An accelerator's solution reaches the same minimum as a CPU's."""
    for hessian, linear in problems(kind, 4):
        one, other = (
            np.asarray(jitted(s)(np.float32(hessian), np.float32(linear)), float)
            for s in ("faces", "search")
        )
        values = [objective(hessian, linear, x) for x in (one, other)]
        np.testing.assert_allclose(*values, atol=1e-5 * max(1, np.max(linear**2)))
