"""Special cases of the solvers on small matrices; theorems are in test_conformance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _simplex
from tests import _samplers

pytestmark = pytest.mark.usefixtures("x64")


min_norm = jax.jit(_simplex.min_norm_point)
affine_min_norm = jax.jit(_simplex.affine_min_norm_point)


def gram_of(rows):
    return jnp.asarray(rows @ rows.T)


def test_normalize():
    scaled, scale = _simplex.normalize(jnp.array([[4.0, -6.0], [-6.0, 16.0]]))
    np.testing.assert_allclose(scaled, [[0.25, -0.375], [-0.375, 1.0]])
    assert scale == 16
    scaled, scale = _simplex.normalize(jnp.zeros((2, 2)))
    np.testing.assert_allclose(scaled, 0)
    assert scale == 1


@pytest.mark.parametrize("solve", [min_norm, affine_min_norm])
def test_one_loss_has_weight_one(solve):
    np.testing.assert_allclose(solve(jnp.array([[3.0]])), [1.0])


@pytest.mark.parametrize("k", [2, 3, 4])
def test_zero_gradients_get_no_weight(k):
    rows = _samplers.zero_task(0, k)
    weights = min_norm(gram_of(rows))
    assert weights[0] == 0
    np.testing.assert_allclose(jnp.sum(weights), 1)
    rest = min_norm(gram_of(rows[1:]))
    np.testing.assert_allclose(weights[1:], rest, rtol=1e-9)
    every = min_norm(jnp.zeros((k, k)))
    np.testing.assert_allclose(every, 1 / k)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_affine_point_is_orthogonal_to_the_differences(k):
    rows = _samplers.generic(3, k)
    weights = np.asarray(affine_min_norm(gram_of(rows)))
    np.testing.assert_allclose(np.sum(weights), 1)
    falls = rows @ (weights @ rows)
    np.testing.assert_allclose(falls, falls[0], rtol=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_affine_point_of_equal_gradients_has_equal_weights(k):
    rows = np.ones((k, 3))
    weights = affine_min_norm(gram_of(rows))
    np.testing.assert_allclose(weights, 1 / k, rtol=1e-12)


def test_interior_points_agree():
    rows = _samplers.conflicting(0, 3)
    inside = min_norm(gram_of(rows))
    assert jnp.all(inside > 0)
    affine = affine_min_norm(gram_of(rows))
    np.testing.assert_allclose(inside, affine, rtol=1e-9)


def test_two_losses_by_the_general_method():
    """The closed form for two equals the active-set method for two of three."""
    for seed in range(5):
        gram, _ = _simplex.normalize(gram_of(_samplers.generic(seed, 2)))
        wider = jnp.pad(gram, (0, 1))  # a third gradient, of zero
        general = min_norm(wider)[:2]
        np.testing.assert_allclose(min_norm(gram), general, rtol=1e-9)
