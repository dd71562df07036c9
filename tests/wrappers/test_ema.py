"""ema: smoothed weights."""

import jax
import numpy as np

import kdopt
from tests.wrappers._trees import PARAMS, draw


def test_ema_averages_the_weights_and_combines_anew():
    tx, plain = kdopt.ema(kdopt.min_norm(), 0.8), kdopt.min_norm()
    state, expected = tx.init(PARAMS), None
    step, combine = jax.jit(tx.update), jax.jit(kdopt.combine)

    @jax.jit
    def weights(grads):
        return plain.update(grads, plain.init(PARAMS), PARAMS)[1].loss_weights

    for seed in range(4):
        grads = draw(seed)
        update, state = step(grads, state, PARAMS)
        fresh = np.asarray(weights(grads))
        expected = fresh if expected is None else 0.8 * expected + 0.2 * fresh
        np.testing.assert_allclose(kdopt.loss_weights(state), expected, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6),
            update,
            combine(grads, expected),
        )
    bad = jax.tree.map(lambda x: x * np.float32(np.nan), grads)
    _, held = step(bad, state, PARAMS)
    np.testing.assert_array_equal(held.loss_weights, state.loss_weights)
