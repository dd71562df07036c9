"""DWA by hand."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from kdopt import scalarizers

PARAMS = jnp.zeros(2)


def _run(tx, rows):
    state = tx.init(PARAMS)

    def step(state, values):
        updates, state = tx.update(PARAMS, state, PARAMS, values=values)
        return state, updates

    return jax.lax.scan(step, state, rows)[0]


def test_dwa_by_hand():
    """Epochs of two steps; ratios 2/4 and 3/2 with T = 2."""
    rows = jnp.array([[3.0, 1.0], [5.0, 3.0], [1.0, 2.0], [3.0, 4.0]])
    state = _run(kdopt.dwa(window=2), rows)
    raw = np.exp(np.array([0.5, 1.5]) / 2)
    np.testing.assert_allclose(state.loss_weights, 2 * raw / raw.sum(), rtol=1e-6)
    early = _run(kdopt.dwa(window=2), rows[:3])
    np.testing.assert_array_equal(early.loss_weights, [1.0, 1.0])


def test_dwa_survives_a_loss_of_zero():
    weights = scalarizers.dwa_weights(jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0]))
    np.testing.assert_array_equal(weights, [1.0, 1.0])
