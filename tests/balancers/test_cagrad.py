"""CAGrad: duality gap, radius, closed form, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians, rates


@pytest.mark.parametrize(("k", "n"), [(2, 5), (3, 9), (5, 7), (8, 16)])
@pytest.mark.parametrize("c", [0.3, 1.0])
def test_no_duality_gap(k, n, c, x64):
    """The worst rate equals the dual objective: the proof of optimality."""
    matrices = jacobians(k, n, count=16)
    weights = batched(kdopt.cagrad_weights, grams(matrices), c=c)
    for matrix, w in zip(matrices, weights, strict=True):
        mean, extra = matrix.mean(axis=0), w - 1 / k
        assert (extra >= -1e-12).all()
        radius = c * np.linalg.norm(mean)
        np.testing.assert_allclose(np.linalg.norm(extra @ matrix), radius, rtol=1e-9)
        vertex = extra / extra.sum() @ matrix
        dual = vertex @ mean + radius * np.linalg.norm(vertex)
        worst = (matrix @ (w @ matrix)).min()
        shortest = np.linalg.norm(matrix, axis=1).min()
        assert dual - worst <= 1e-9 * np.linalg.norm(mean) * shortest


def test_closed_form_of_two(x64):
    matrices = grams(jacobians(2, 4, count=16))
    found = batched(kdopt.cagrad_weights, matrices, c=0.5)
    for gram, weights in zip(matrices, found, strict=True):
        (a, c), (_, b) = gram
        s, mean = a + b - 2 * c, (a + b + 2 * c) / 4
        kappa, delta = 0.5 * np.sqrt(mean), (b - a) / 2
        w = float(delta > 0)
        if kappa**2 * s > delta**2:
            least = (a * b - c**2) / s
            bend = delta * np.sqrt(least / (s * (kappa**2 * s - delta**2)))
            w = np.clip((b - c) / s + bend, 0, 1)
        vertex = np.array([w, 1 - w])
        expected = 0.5 + kappa / np.sqrt(vertex @ gram @ vertex) * vertex
        np.testing.assert_allclose(weights, expected, rtol=1e-8)


def test_no_loss_rises_if_the_radius_is_one():
    matrices = jacobians(6, 8)
    weights = batched(kdopt.cagrad_weights, grams(matrices), c=1.0)
    moving = np.linalg.norm(weights, axis=1) > 0
    assert moving.sum() > 8
    assert rates(matrices[moving], weights[moving]).min() > -1e-3


def test_radius_zero_is_the_mean():
    weights = batched(kdopt.cagrad_weights, grams(jacobians(4, 6)), c=0.0)
    np.testing.assert_allclose(weights, 0.25, rtol=1e-6)


def test_one_loss_and_no_update_at_a_stationary_point():
    solve = jax.jit(kdopt.cagrad_weights)
    np.testing.assert_allclose(solve(np.array([[4.0]]), c=0.5), [1.5])
    opposite = np.array([[1.0, -2.0], [-2.0, 4.0]])
    weights = np.asarray(solve(opposite, c=1.5))
    np.testing.assert_allclose(weights[0] - 2 * weights[1], 0, atol=1e-6)
    with pytest.raises(ValueError, match="c must lie in"):
        kdopt.cagrad(c=-0.1)


def distance(matrix, weights):
    """From the update to the mean gradient, in lengths of that."""
    mean = matrix.mean(axis=0)
    return np.linalg.norm(weights @ matrix - mean) / np.linalg.norm(mean)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9, 0.99])
def test_nearly_opposite_gradients_keep_the_update_in_its_ball(c):
    """A ball around the mean that does not hold zero: then the update is not zero."""
    gaps = (1e-1, 1e-2, 5e-3, 2e-3, 1e-3, 1e-4, 1e-6, 0.0)
    matrices = np.array([[[1.0, 0.0], [-1.0, d], [0.0, 1.0]] for d in gaps])
    single = batched(kdopt.cagrad_weights, grams(matrices), jnp.float32, c=c)
    with jax.enable_x64(True):
        double = batched(kdopt.cagrad_weights, grams(matrices), c=c)
    for d, matrix, weights, exact in zip(gaps, matrices, single, double, strict=True):
        assert distance(matrix, weights) <= 1.01 * c, d
        assert np.linalg.norm(weights @ matrix) > 0.9 * (1 - c) / 3
        if d >= 2e-3:  # so that single precision tells d * d beside 1
            assert distance(matrix, weights) >= 0.98 * c
            rate = np.min(matrix @ (weights @ matrix))
            best = np.min(matrix @ (exact @ matrix))
            assert 0.97 * best <= rate <= 1.001 * best


@pytest.mark.parametrize(("k", "n"), [(2, 5), (3, 9), (5, 7), (8, 16)])
@pytest.mark.parametrize("c", [0.3, 0.9, 0.99])
def test_the_ball_holds_in_single_precision(k, n, c):
    """For gradients of any length, two of them nearly opposite."""
    for spread in (0.0, 2.0, 4.0):
        matrices = jacobians(k, n, count=64, spread=spread)
        angles = 10 ** np.linspace(-4, 0, 64)[:, None]
        rng = np.random.default_rng(k)
        matrices[:, 1] = -matrices[:, 0] * rng.uniform(0.1, 10, size=(64, 1))
        lengths = np.linalg.norm(matrices[:, 1], axis=1, keepdims=True)
        matrices[:, 1] += angles * lengths * rng.normal(size=(64, n))
        weights = batched(kdopt.cagrad_weights, grams(matrices), jnp.float32, c=c)
        for matrix, w in zip(matrices, weights, strict=True):
            # what the rounding of the Gram matrix makes of the length of the mean
            mean = np.linalg.norm(matrix.mean(axis=0))
            lost = 1e-6 * np.linalg.norm(matrix, axis=1).max() ** 2 / mean**2
            assert distance(matrix, w) <= c * (1.02 + lost)
            assert np.any(w > 0)
