"""The fair point solves its equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _fixed_point
from tests import _samplers

fair_point = jax.jit(_fixed_point.fair_point)


def residual(gram, weights, alpha):
    """Returns by how much ``w^alpha (G w)^alpha = 1`` is violated."""
    return np.asarray(gram @ weights) ** alpha * np.asarray(weights) - 1


@pytest.mark.parametrize("kind", ["generic", "conflicting", "parallel", "equal"])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_residual(x64, kind, alpha, k):
    for seed in range(3):
        rows = _samplers.KINDS[kind](seed, k)
        gram = rows @ rows.T
        weights = np.asarray(fair_point(gram, alpha))
        assert np.all(weights > 0)
        np.testing.assert_allclose(residual(gram, weights, alpha), 0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_orthogonal_gradients(x64, alpha):
    """``n^2 w = w^(-1 / alpha)`` has the root ``n^(-2 alpha / (1 + alpha))``."""
    norms = np.array([0.01, 1.0, 30.0])
    expected = norms ** (-2 * alpha / (1 + alpha))
    np.testing.assert_allclose(fair_point(np.diag(norms**2), alpha), expected)


def test_nash_point_of_two(x64):
    """Norms n and cosine c: ``w = 1 / (n sqrt(1 + c))``."""
    gram = np.array([[18.0, -22.0], [-22.0, 38.0]])
    norms = np.sqrt(np.diagonal(gram))
    cosine = gram[0, 1] / np.prod(norms)
    np.testing.assert_allclose(fair_point(gram, 1.0), 1 / norms / np.sqrt(1 + cosine))


def test_gradients_of_very_different_length(x64):
    rows = _samplers.generic(0, 3) * np.array([[1e-6], [1.0], [1e6]])
    gram = rows @ rows.T
    weights = np.asarray(fair_point(gram, 1.0))
    np.testing.assert_allclose(residual(gram, weights, 1.0), 0, atol=1e-6)


def test_a_zero_gradient_is_left_out(x64):
    rows = _samplers.zero_task(0, 3)
    weights = np.asarray(fair_point(rows @ rows.T, 1.0))
    assert weights[0] == 0
    rest = fair_point(rows[1:] @ rows[1:].T, 1.0)
    np.testing.assert_allclose(weights[1:], rest, rtol=1e-9)


@pytest.mark.parametrize("kind", ["opposite", "all_zero", "tiny"])
def test_finite_in_single_precision(kind):
    rows = jnp.asarray(_samplers.KINDS[kind](0, 3), jnp.float32)
    weights = fair_point(rows @ rows.T, jnp.float32(1.0))
    assert jnp.all(jnp.isfinite(weights))
