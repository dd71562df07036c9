"""The reduction over the batch, and what keeps rows apart."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt.losses._reduce import batch_mean, clear_masked, divide_or_zero, row_weights


def test_batch_mean_is_weighted():
    values = jnp.array([1.0, 2.0, 6.0])
    assert batch_mean(values, None) == 3
    assert batch_mean(values, jnp.array([3.0, 0.0, 1.0])) == 9 / 4
    assert batch_mean(values, jnp.zeros(3)) == 0


def test_masked_rows_are_selected_away():
    x = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    np.testing.assert_array_equal(
        clear_masked(x, jnp.array([0.5, 0.0])), [[1, 2], [0, 0]]
    )
    assert clear_masked(x, None) is x
    np.testing.assert_array_equal(row_weights(x, None), [1, 1])


def test_division_by_zero_is_zero_without_gradient():
    value, grads = jax.value_and_grad(divide_or_zero, argnums=(0, 1))(
        jnp.array(3.0), jnp.array(0.0)
    )
    assert (value, *grads) == (0, 0, 0)
    assert divide_or_zero(jnp.array(3.0), jnp.array(2.0)) == 1.5
