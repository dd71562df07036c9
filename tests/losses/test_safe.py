"""Norms and directions where the ordinary formulas break down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt.losses._safe import centred, norm, unit


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norm_and_unit_at_any_scale(scale):
    x = jnp.array([[3.0, 4.0]]) * scale
    np.testing.assert_allclose(norm(x), [[5 * scale]], rtol=1e-6)
    np.testing.assert_allclose(unit(x), [[0.6, 0.8]], rtol=1e-6)
    slope = jax.grad(lambda x: norm(x).sum())(x)
    np.testing.assert_allclose(slope, [[0.6, 0.8]], rtol=1e-6)
    slope = jax.grad(lambda x: unit(x)[0, 0])(x)
    np.testing.assert_allclose(slope, [[0.128 / scale, -0.096 / scale]], rtol=1e-5)


@pytest.mark.parametrize("function", [norm, unit])
def test_zero_vector(function):
    value, slope = jax.value_and_grad(lambda x: function(x).sum())(jnp.zeros((2, 3)))
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_centred_is_numpy_and_weighted():
    x = jnp.array([[1.0, 2.0, 6.0], [0.0, 1.0, 5.0]])
    ones = jnp.ones_like(x)
    np.testing.assert_allclose(centred(x, ones), x - np.mean(x, 1, keepdims=True))
    weights = jnp.array([[3.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        centred(x, weights), [[-0.25, 0.75, 0], [-0.25, 0.75, 0]]
    )


def test_centred_constant_is_exactly_zero():
    # The mean of seven times 0.1 is not 0.1 in float32.
    x = jnp.full((1, 7), 0.1)
    value, slope = jax.value_and_grad(lambda x: centred(x, jnp.ones_like(x))[0, 0])(x)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
