"""Scheduled weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt import scalarizers

PARAMS = jnp.zeros(2)


def _losses_fn(x):
    return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)


def test_linear_follows_its_schedules():
    tx = scalarizers.weighted_sum([0.5, optax.linear_schedule(0.0, 1.0, 2)])
    state = tx.init(PARAMS)
    seen = [kdopt.loss_weights(state)]
    for _ in range(3):
        updates, state = tx.update(PARAMS, state, PARAMS)
        seen.append(kdopt.loss_weights(state))
    assert updates is PARAMS
    np.testing.assert_allclose(np.stack(seen)[:, 1], [0.0, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(np.stack(seen)[:, 0], 0.5)


def test_linear_agrees_with_the_balancer_of_the_same_name():
    balancer, x = kdopt.linear([0.2, 0.8]), np.float32([2, 3])
    state = scalarizers.weighted_sum(jnp.array([0.2, 0.8])).init(PARAMS)

    @jax.jit
    def both(x, weights):
        _, per_loss = kdopt.value_and_grads(_losses_fn)(x)
        expected, _ = balancer.update(per_loss, balancer.init(PARAMS))
        _, got = kdopt.value_and_weighted_grad(_losses_fn)(x, weights=weights)
        return got, expected

    got, expected = both(x, kdopt.loss_weights(state))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    for bad in ([], jnp.ones((2, 2))):
        with pytest.raises(ValueError, match="list of K numbers or schedules"):
            scalarizers.weighted_sum(bad)
