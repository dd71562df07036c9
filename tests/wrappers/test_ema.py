"""ema: smoothed weights."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}


def _grads(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        {
            "head": jax.random.normal(keys[i], (2,), dtype),
            "trunk": jax.random.normal(keys[i + 2], (2, 2), dtype),
        }
        for i in range(2)
    )


def test_ema_averages_the_weights_and_combines_anew():
    tx, plain = kdopt.ema(kdopt.min_norm(), 0.8), kdopt.min_norm()
    state, expected = tx.init(PARAMS), None
    for seed in range(4):
        grads = _grads(seed)
        update, state = tx.update(grads, state, PARAMS)
        _, fresh = plain.update(grads, plain.init(PARAMS), PARAMS)
        fresh = fresh.loss_weights
        expected = fresh if expected is None else 0.8 * expected + 0.2 * fresh
        np.testing.assert_allclose(kdopt.loss_weights(state), expected, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6),
            update,
            kdopt.combine(grads, expected),
        )
    bad = jax.tree.map(lambda x: x * jnp.nan, grads)
    _, held = tx.update(bad, state, PARAMS)
    np.testing.assert_array_equal(held.loss_weights, state.loss_weights)
