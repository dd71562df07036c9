"""UW: the gradient of its objective."""

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


def test_uncertainty_weights_are_the_gradient_of_its_objective():
    values, scales = jnp.array([2.0, 0.3]), jnp.array([0.1, -1.0])

    def objective(values, s):
        return jnp.sum(jnp.exp(-s) * values / 2 + s / 2)

    expected = jax.jit(jax.grad(objective))(values, scales)
    weights = scalarizers.uncertainty_weights(scales)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_uncertainty_is_half_of_imtl_l(standard):
    """Adam sees no common factor of the slopes, so only the weights differ."""
    rows = np.float32(np.random.default_rng(0).uniform(0.5, 3.0, (20, 2)))
    half = kdopt.loss_weights(_run(kdopt.uncertainty(0.05), rows))
    full = kdopt.loss_weights(_run(kdopt.imtl_l(0.05), rows))
    np.testing.assert_allclose(2 * half, full, rtol=1e-5)
