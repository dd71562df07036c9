"""Fixed and scheduled weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt


def test_schedules_and_numbers_side_by_side():
    tx = kdopt.linear([0.5, optax.linear_schedule(1.0, 0.0, 4), -2.0])
    grads = (np.array([1.0]), np.array([10.0]), np.array([100.0]))
    state, update = jax.jit(tx.init)(np.zeros(1)), jax.jit(tx.update)
    np.testing.assert_allclose(state.loss_weights, [0.5, 1.0, -2.0])
    for second in (1.0, 0.75, 0.5):
        combined, state = update(grads, state)
        np.testing.assert_allclose(combined, [0.5 + 10 * second - 200])
        np.testing.assert_allclose(np.asarray(kdopt.loss_weights(state))[1], second)


@pytest.mark.parametrize("weights", [[], jnp.ones(()), jnp.ones((2, 2))])
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="weights must"):
        kdopt.linear(weights)
