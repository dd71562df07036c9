"""ExcessMTL: by hand over steps; a loss at its optimum loses weight."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt


def test_three_steps_by_hand(x64):
    eta, eps = 0.3, 1e-7
    tx = kdopt.excess_mtl(learning_rate=eta)
    state, update = tx.init(jnp.zeros(4)), jax.jit(tx.update)
    squares, weights, first = np.zeros((2, 4)), np.full(2, 0.5), None
    for matrix in np.random.default_rng(0).normal(size=(3, 2, 4)):
        u, state = update(tuple(jnp.asarray(matrix)), state)
        squares += matrix**2
        risks = np.sum(matrix**2 / np.sqrt(squares + eps), axis=1)
        if first is None:
            first = risks
        else:
            weights = weights * np.exp(eta * risks / first)
            weights /= weights.sum()
        np.testing.assert_allclose(kdopt.loss_weights(state), weights, rtol=1e-9)
        np.testing.assert_allclose(u, weights @ matrix, rtol=1e-9)


def test_bad_gradients_are_left_out():
    tx = kdopt.excess_mtl()
    state = tx.init(jnp.zeros(2))
    _, after = tx.update((jnp.array([jnp.inf, 0.0]), jnp.ones(2)), state)
    assert after.notfinite_count == 1
    np.testing.assert_array_equal(after.squares[1], state.squares[1])
    assert jnp.all(jnp.isnan(after.first_risks))
