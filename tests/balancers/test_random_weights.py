"""Random weights: on the simplex, new at each step, of equal mean."""

import jax
import numpy as np
import pytest

import kdopt


def test_weights_are_new_at_each_step_and_of_equal_mean():
    tx = kdopt.random_weights(num_losses=3, key=jax.random.key(0))

    @jax.jit
    def train(grads):
        def step(state, _):
            update, state = tx.update(grads, state)
            return state, update

        return jax.lax.scan(step, tx.init(grads[0]), length=2000)[1]

    updates = np.asarray(train(tuple(np.eye(3))))
    np.testing.assert_allclose(np.sum(updates, axis=1), 1, rtol=1e-5)
    assert np.min(np.std(updates, axis=0)) > 0.1
    np.testing.assert_allclose(np.mean(updates, axis=0), 1 / 3, atol=0.03)


def test_needs_a_key():
    with pytest.raises(TypeError, match="argument: 'key'"):
        kdopt.random_weights()
