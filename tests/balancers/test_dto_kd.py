"""DTO-KD: invariances, bounds and the two scales of the weights."""

import jax
import numpy as np
import pytest

import kdopt
from tests import _samplers

solve = jax.jit(
    kdopt.dto_kd_weights, static_argnames=("min_losses", "simplex", "rescale")
)


def weights(rows, values, **kwargs):
    return np.asarray(solve(rows @ rows.T, values, **kwargs))


ROWS, VALUES = _samplers.conflicting(0, 3), np.array([0.7, 1.9, 3.0])


@pytest.mark.parametrize("simplex", [True, False])
def test_constant_factors_of_the_losses_are_inert(x64, simplex):
    factors = np.array([16.0, 0.1, 3.0])
    got = weights(factors[:, None] * ROWS, factors * VALUES, simplex=simplex)
    np.testing.assert_allclose(
        got * factors, weights(ROWS, VALUES, simplex=simplex), rtol=1e-10
    )


def test_offsets_are_not_inert_unless_told(x64):
    """An entropy of the teacher, in a cross-entropy with soft targets."""
    offset = np.array([0.0, 0.5, 0.0])
    plain = weights(ROWS, VALUES)
    assert np.max(np.abs(weights(ROWS, VALUES + offset) - plain)) > 0.01
    told = weights(ROWS, VALUES + offset, min_losses=tuple(offset))
    np.testing.assert_allclose(told, plain, rtol=1e-10)


def test_one_bound_for_all(x64):
    got = weights(ROWS, VALUES + 0.3, min_losses=0.3)
    np.testing.assert_allclose(got, weights(ROWS, VALUES), rtol=1e-10)


def test_convex_rescaling_keeps_the_direction(x64):
    plain = weights(ROWS, VALUES)
    convex = weights(ROWS, VALUES, rescale="convex")
    np.testing.assert_allclose(convex, plain / np.sum(plain), rtol=1e-12)


def test_is_min_norm_on_log_gradients(x64):
    logs = ROWS / VALUES[:, None]
    pi = np.asarray(jax.jit(kdopt.min_norm_weights)(logs @ logs.T))
    np.testing.assert_allclose(weights(ROWS, VALUES), pi / VALUES, rtol=1e-9)


@pytest.mark.parametrize("small", [1e-4, 1e-8])
def test_weights_stay_bounded_as_a_loss_vanishes(x64, small):
    """With |g|^2 proportional to L, pi / L tends to G_jj L / |g|^2."""
    rows = np.array([[1.0, 0.0, 0.0], [0.0, np.sqrt(small), 0.0]])
    got = weights(rows, np.array([2.0, small]))
    np.testing.assert_allclose(got[1], 0.25, rtol=2 * small + 1e-9)


@pytest.mark.parametrize("values", [(1e-30, 1.0), (1e18, 1e-18), (0.0, 1.0)])
def test_extreme_losses_stay_finite(values):
    gram = np.array([[1.0, -0.5], [-0.5, 2.0]])
    for rescale in ("none", "convex"):
        got = np.asarray(solve(gram, np.array(values), rescale=rescale))
        assert np.all(np.isfinite(got)) and np.any(got > 0)


def test_one_loss_is_refused():
    with pytest.raises(ValueError, match="num_losses must be at least 2"):
        kdopt.dto_kd(num_losses=1)


@pytest.mark.parametrize("values", [(1e-8, 1e12), (1e12, 1e-8)])
@pytest.mark.parametrize("norm", [1e-18, 1.0, 1e18])
def test_losses_of_very_different_size(values, norm):
    """Against double: the relative gradients differ by a factor of 1e20."""
    rows = np.float32(norm * np.array([[3.0, 1.0], [-2.0, 2.5]])).astype(float)
    for simplex in (True, False):
        got = weights(rows, np.float64(values), simplex=simplex)
        with jax.enable_x64(True):
            right = weights(rows, np.float64(values), simplex=simplex)
        np.testing.assert_allclose(got, right, rtol=1e-5)


def test_weights_of_negative_sum_are_not_made_convex():
    """Divided by their sum, these weights would raise both losses."""
    rows, values = np.array([[2.0, 0.0], [1.0, 0.1]]), np.array([10.0, 1.0])
    literal = weights(rows, values, simplex=False)
    assert np.sum(literal) < 0 and np.all(rows @ (literal @ rows) > 0)
    for make in (lambda **kw: weights(rows, values, **kw), kdopt.dto_kd):
        with pytest.raises(ValueError, match="leave simplex at True"):
            make(simplex=False, rescale="convex")
