"""Projections on cones and within balls, against all faces."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _cone
from tests import _samplers

pytestmark = pytest.mark.usefixtures("x64")

dual_cone_point = jax.jit(_cone.dual_cone_point)
conflict_averse_step = jax.jit(_cone.conflict_averse_step)

KINDS = (
    *("generic", "conflicting", "parallel", "opposite", "equal", "zero_task"),
    *("rank_deficient", "strongly_stationary", "weakly_stationary"),
)


def nearest(rows, point):
    """The nearest point with no negative inner product: it is on a face, so try all."""
    k, found = len(rows), []
    for size in range(k + 1):
        for face in map(list, itertools.combinations(range(k), size)):
            tight = rows[face]
            candidate = point - np.linalg.pinv(tight, rcond=1e-10) @ (tight @ point)
            if np.all(rows @ candidate >= -1e-9):
                found.append(candidate)
    return min(found, key=lambda candidate: np.linalg.norm(candidate - point))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3, 4])
def test_dual_cone_point_is_the_nearest(kind, k):
    for seed in range(3):
        rows = _samplers.KINDS[kind](seed, k)
        floor = _samplers.values(seed, k)
        weights = np.asarray(dual_cone_point(rows @ rows.T, floor))
        assert np.all(weights >= floor)
        expected = nearest(rows, floor @ rows)
        np.testing.assert_allclose(weights @ rows, expected, atol=1e-8)


def test_dual_cone_point_keeps_the_weight_of_a_zero_gradient():
    rows = _samplers.zero_task(0, 3)
    assert dual_cone_point(rows @ rows.T, np.array([0.7, 1.0, 1.0]))[0] == 0.7


def test_regularize_adds_a_ridge_in_units_of_the_trace():
    gram = jnp.array([[3.0, 1.0], [1.0, 5.0]])
    got = _cone.regularize(gram, 0.0, 0.5) / 8
    np.testing.assert_allclose(got, [[0.875, 0.125], [0.125, 1.125]])
    np.testing.assert_array_equal(_cone.regularize(gram, 0.0, 0.0), gram)


@pytest.mark.parametrize(("gram", "norm_eps"), [(0.0, 0.0), (1e-9, 1e-4)])
def test_regularize_gives_the_identity_for_small_gradients(gram, norm_eps):
    got = _cone.regularize(jnp.full((2, 2), gram), norm_eps, 0.0)
    np.testing.assert_array_equal(got, np.eye(2))


def best_rate(rows, radius):
    """The largest minimal rate, by the minimum of the dual function over the simplex.

    With g_w = J'w: max over the ball of min <g_i, u> = min over w of
    <g_w, g_0> + radius |g_0| |g_w|, for which a fine grid is enough.
    """
    k = len(rows)
    steps = {2: 20000, 3: 300}[k]
    grid = np.array(
        [
            p
            for p in itertools.product(range(steps + 1), repeat=k - 1)
            if sum(p) <= steps
        ]
    )
    grid = np.column_stack([grid, steps - grid.sum(axis=1)]) / steps
    mean = rows.mean(axis=0)
    mixed = grid @ rows
    length = radius * np.linalg.norm(mean)
    return np.min(mixed @ mean + length * np.linalg.norm(mixed, axis=1))


@pytest.mark.parametrize("kind", ["generic", "conflicting", "rank_deficient"])
@pytest.mark.parametrize("radius", [0.3, 0.8, 1.5])
@pytest.mark.parametrize("k", [2, 3])
def test_conflict_averse_step_reaches_the_best_rate(kind, radius, k):
    for seed in range(3):
        rows = _samplers.KINDS[kind](seed, k)
        step = np.asarray(conflict_averse_step(rows @ rows.T, radius))
        mean = rows.mean(axis=0)
        change, allowed = step @ rows, radius * np.linalg.norm(mean)
        # all -1 / k where the gradients cancel within the ball, so that the update is
        # zero
        assert np.all(step >= 0) or np.all(step == -1 / k)
        assert np.linalg.norm(change) <= allowed * (1 + 1e-9)
        rate = np.min(rows @ (mean + change))
        bound = best_rate(rows, radius)  # of the grid, so at least the true one
        size = np.max(np.sum(rows**2, axis=1))
        assert bound - 1e-3 * size <= rate <= bound + 1e-9 * size


def test_no_conflict_averse_step_without_a_ball():
    rows = _samplers.generic(0, 3)
    np.testing.assert_allclose(conflict_averse_step(rows @ rows.T, 0.0), 0, atol=1e-12)


def test_conflict_averse_step_undoes_the_mean_where_no_loss_can_be_helped():
    rows = _samplers.strongly_stationary(0, 3)
    step = conflict_averse_step(rows @ rows.T, 2.0)
    np.testing.assert_allclose(step, -1 / 3)
