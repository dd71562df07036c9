"""M-ConFIG: against the algorithm written out, turns, bad gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def config(matrix):
    """ConFIG by the pseudo-inverse of the unit gradients."""
    units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    direction = np.linalg.pinv(units) @ np.ones(len(matrix))
    direction /= np.linalg.norm(direction)
    return (matrix @ direction).sum() * direction


def test_follows_the_algorithm(x64):
    k, n, b1, b2 = 3, 5, 0.9, 0.99
    gradients = np.random.default_rng(0).normal(size=(11, n))
    tx = kdopt.momentum_conflict_free(num_losses=k, b1=b1, b2=b2)
    state, update = tx.init(jnp.zeros(n)), jax.jit(tx.update)
    m, turns = np.zeros((k, n)), np.zeros(k)
    pseudo, square, t = np.zeros(n), np.zeros(n), 0
    for step, gradient in enumerate(gradients):
        i = step % k
        np.testing.assert_array_equal(kdopt.loss_weights(state), np.arange(k) == i)
        u, state = update(jnp.asarray(gradient), state)
        m[i] = b1 * m[i] + (1 - b1) * gradient
        turns[i] += 1
        if step < k - 1:
            np.testing.assert_array_equal(u, np.zeros(n))
            continue
        t += 1
        direction = config(m / (1 - b1 ** turns[:, None]))
        new = direction * (1 - b1**t)
        square = b2 * square + (1 - b2) * ((new - b1 * pseudo) / (1 - b1)) ** 2
        pseudo = new
        expected = direction / (np.sqrt(square / (1 - b2**t)) + 1e-8)
        np.testing.assert_allclose(u, expected, rtol=1e-8)


def test_a_bad_gradient_is_left_out_and_the_turn_repeated():
    tx = kdopt.momentum_conflict_free()
    update = jax.jit(tx.update)
    _, state = update(np.float32([1, 1]), tx.init(jnp.zeros(2)))
    _, after = update(np.float32([np.nan, 1]), state)
    assert after.notfinite_count == 1
    np.testing.assert_array_equal(after.loss_weights, state.loss_weights)
    np.testing.assert_array_equal(after.traces[1], state.traces[1])


def test_keeps_the_dtype_and_refuses_a_tuple():
    params = {"w": jnp.zeros(3, jnp.bfloat16)}
    tx = kdopt.momentum_conflict_free()
    state = tx.init(params)
    update, _ = jax.jit(tx.update)(params, state, params)
    assert update["w"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="takes the gradient of one loss"):
        tx.update((params, params), state, params)
