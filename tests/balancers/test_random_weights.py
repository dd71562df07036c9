"""Random weights: on the simplex, new at each step, of equal mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_weights_are_new_at_each_step_and_of_equal_mean():
    tx = kdopt.random_weights(num_losses=3, key=jax.random.key(0))
    grads = tuple(jnp.eye(3))

    def step(state, _):
        update, state = tx.update(grads, state)
        return state, update

    _, updates = jax.lax.scan(step, tx.init(jnp.zeros(3)), length=2000)
    np.testing.assert_allclose(jnp.sum(updates, axis=1), 1, rtol=1e-5)
    assert jnp.min(jnp.std(updates, axis=0)) > 0.1
    np.testing.assert_allclose(jnp.mean(updates, axis=0), 1 / 3, atol=0.03)


def test_needs_a_key():
    with pytest.raises(TypeError, match="argument: 'key'"):
        kdopt.random_weights()
