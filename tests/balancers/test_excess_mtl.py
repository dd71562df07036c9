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
        u, state = update(tuple(matrix), state)
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
    bad = (np.array([np.inf, 0.0]), np.ones(2))
    _, after = jax.device_get(jax.jit(tx.update)(bad, state))
    assert after.notfinite_count == 1
    np.testing.assert_array_equal(after.squares[1], state.squares[1])
    assert np.all(np.isnan(after.first_risks))


def test_a_weight_that_vanished_comes_back():
    """Below the smallest number there is, and up again when its loss gets worse."""
    tx = kdopt.excess_mtl(learning_rate=50.0)
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(1))

    def follow(state, first, second, steps):
        for _ in range(steps):
            _, state = step((np.full(1, first), np.full(1, second)), state)
        return jax.device_get(state)

    state = follow(state, 1.0, 1.0, 1)
    state = follow(state, 1.0, 1e-6, 20)
    assert state.loss_weights[1] == 0
    np.testing.assert_allclose(state.log_weights[1], -350, atol=20)
    state = follow(state, 1e-6, 1.0, 40)
    assert state.loss_weights[1] > 0.99


def test_a_loss_that_comes_later_starts_with_its_share():
    """Its baseline is its first risk, not that of the step on which it was absent."""
    tx = kdopt.excess_mtl(num_losses=3, learning_rate=1.0)
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(1))
    for scale in (0.0, 0.0, 1.0):
        grads = tuple(np.full(1, x) for x in (1.0, 1.0, scale))
        _, state = step(grads, state)
        np.testing.assert_allclose(state.loss_weights, 1 / 3, rtol=1e-5)
    assert np.all(np.asarray(state.first_risks) > 0)
