"""MoCo: two steps by hand; noise that biases the Gram matrix averages out."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from tests.balancers._inputs import GOLDEN


def test_two_steps_by_hand(x64):
    tx = kdopt.moco(beta=0.5, gamma=0.01)
    grads = tuple(GOLDEN)
    state, update = jax.jit(tx.init)(np.zeros(3)), jax.jit(tx.update)
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
    noise = np.random.default_rng(0).normal(size=(1500, 2, 2)) * [[0.0], [2.0]]

    def step(state, matrix):
        return tx.update(tuple(matrix), state)[1], None

    scan = jax.jit(lambda xs: jax.lax.scan(step, tx.init(xs[0, 0]), xs)[0])
    state = scan(np.eye(2) + noise)
    np.testing.assert_allclose(state.loss_weights, 0.5, atol=0.1)
    # The min-norm weights of one batch lean to the gradient without noise.
    naive = jax.jit(kdopt.min_norm_weights)(np.diag([1.0, 1.0 + 2 * 4.0]))
    assert np.asarray(naive)[0] > 0.85


def test_the_state_has_the_dtype_of_the_parameters_whenever_it_was_made():
    tx = kdopt.moco()
    with jax.enable_x64(True):
        wide = kdopt.moco()
        state = tx.init(jnp.zeros(2, jnp.float64))
        assert state.inner.dtype == state.loss_weights.dtype == jnp.float64
    assert wide.init(jnp.zeros(2, jnp.float32)).inner.dtype == jnp.float32
