"""DWA by hand."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from kdopt import scalarizers

PARAMS = jnp.zeros(2)


def _run(tx, rows):
    def step(state, values):
        updates, state = tx.update(PARAMS, state, PARAMS, values=values)
        return state, updates

    return jax.jit(lambda rows: jax.lax.scan(step, tx.init(PARAMS), rows)[0])(rows)


def test_dwa_by_hand():
    """Epochs of two steps; ratios 2/4 and 3/2 with T = 2."""
    rows = np.float32([[3, 1], [5, 3], [1, 2], [3, 4]])
    state = _run(kdopt.dwa(window=2), rows)
    raw = np.exp(np.array([0.5, 1.5]) / 2)
    np.testing.assert_allclose(state.loss_weights, 2 * raw / raw.sum(), rtol=1e-6)
    early = _run(kdopt.dwa(window=2), rows[:3])
    np.testing.assert_array_equal(early.loss_weights, [1.0, 1.0])


def test_dwa_survives_a_loss_of_zero():
    dwa_weights = jax.jit(scalarizers.dwa_weights)
    weights = dwa_weights(np.float32([1, 0]), np.float32([0, 0]))
    np.testing.assert_array_equal(weights, [1.0, 1.0])
