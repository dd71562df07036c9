"""MoCo: two steps by hand; noise that biases the Gram matrix averages out."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from tests.balancers._inputs import GOLDEN


def test_two_steps_by_hand(x64):
    tx = kdopt.moco(beta=0.5, gamma=0.01)
    grads = tuple(jnp.asarray(row) for row in GOLDEN)
    state, update = tx.init(jnp.zeros(3)), jax.jit(tx.update)
    y, weights = np.zeros((2, 3)), np.full(2, 0.5)
    for t in (1, 2):
        u, state = update(grads, state)
        y = y - 0.5 / np.sqrt(t) * (y - GOLDEN)
        moved = weights - 0.01 / np.sqrt(t) * (y @ y.T) @ weights
        weights = moved + (1 - moved.sum()) / 2  # inside the simplex
        np.testing.assert_allclose(kdopt.loss_weights(state), weights, rtol=1e-12)
        np.testing.assert_allclose(u, weights @ y, atol=1e-12)


def test_noise_averages_out():
    """Equal norms of the means, very different noise: the weights must be equal."""
    tx = kdopt.moco(beta=0.2, gamma=0.05, gamma_decay=0.25)
    means = jnp.array([[1.0, 0.0], [0.0, 1.0]])

    def step(state, key):
        noise = jax.random.normal(key, (2, 2)) * jnp.array([[0.0], [2.0]])
        _, state = tx.update(tuple(means + noise), state)
        return state, None

    keys = jax.random.split(jax.random.key(0), 1500)
    state, _ = jax.lax.scan(step, tx.init(jnp.zeros(2)), keys)
    np.testing.assert_allclose(state.loss_weights, 0.5, atol=0.1)
    # The min-norm weights of one batch lean to the gradient without noise.
    naive = kdopt.min_norm_weights(jnp.diag(jnp.array([1.0, 1.0 + 2 * 4.0])))
    assert naive[0] > 0.85
