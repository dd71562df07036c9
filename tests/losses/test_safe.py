"""Norms and directions where the ordinary formulas break down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt.losses._safe import centred, norm, unit


@jax.jit
def norm_and_unit(x):
    """Both, and their gradients."""
    of_length = jax.grad(lambda x: norm(x).sum())(x)
    of_direction = jax.grad(lambda x: unit(x)[0, 0])(x)
    return norm(x), unit(x), of_length, of_direction


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norm_and_unit_at_any_scale(scale):
    length, direction, of_length, of_direction = norm_and_unit(
        np.float32([[3.0 * scale, 4.0 * scale]])
    )
    np.testing.assert_allclose(length, [[5 * scale]], rtol=1e-6)
    np.testing.assert_allclose(direction, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(of_length, [[0.6, 0.8]], rtol=1e-6)
    expected = [[0.128 / scale, -0.096 / scale]]
    np.testing.assert_allclose(of_direction, expected, rtol=1e-5)


@pytest.mark.parametrize("function", [norm, unit])
def test_zero_vector(function):
    total = jax.jit(jax.value_and_grad(lambda x: function(x).sum()))
    value, slope = total(np.zeros((2, 3), np.float32))
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_centred_is_numpy_and_weighted():
    x, fn = np.float32([[1.0, 2.0, 6.0], [0.0, 1.0, 5.0]]), jax.jit(centred)
    ones = np.ones_like(x)
    np.testing.assert_allclose(fn(x, ones), x - np.mean(x, 1, keepdims=True))
    weights = np.float32([[3.0, 1.0, 0.0]])
    np.testing.assert_allclose(fn(x, weights), [[-0.25, 0.75, 0], [-0.25, 0.75, 0]])


def test_centred_constant_is_exactly_zero():
    # The mean of seven times 0.1 is not 0.1 in float32.
    x = np.full((1, 7), 0.1, np.float32)
    fn = jax.jit(jax.value_and_grad(lambda x: centred(x, jnp.ones_like(x))[0, 0]))
    value, slope = fn(x)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
