"""Curriculum temperature: range, reversed gradient, schedule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses


def test_range_and_shape():
    x = jnp.array([[-100.0], [0.0], [100.0]])
    between = functools.partial(losses.ctkd_temperature, minimum=2.0, span=6.0)
    tau = jax.jit(between)(x, 1.0)
    np.testing.assert_allclose(tau, [[2], [5], [8]])


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_gradient_is_reversed_and_scaled(strength):
    s, t = jnp.array([[2.0, 0.0, 1.0]]), jnp.array([[0.0, 2.0, 1.0]])

    def loss(x):
        return losses.kd(s, t, temperature=losses.ctkd_temperature(x, strength))

    def plain(x):
        return losses.kd(s, t, temperature=1 + 20 * jax.nn.sigmoid(x))

    x = jnp.array(-1.0)
    value, slope = jax.jit(jax.value_and_grad(loss))(x)
    expected, plain_slope = jax.jit(jax.value_and_grad(plain))(x)
    assert plain_slope != 0
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, -strength * float(plain_slope), rtol=1e-4)


def test_schedule():
    epochs = (0, 2.5, 5, 10, 50)
    values = [losses.ctkd_reversal(epoch) for epoch in epochs]
    expected = [0, (1 - 0.5**0.5) / 2, 0.5, 1, 1]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    with pytest.raises(ValueError, match="num_epochs"):
        losses.ctkd_reversal(1, num_epochs=0)
