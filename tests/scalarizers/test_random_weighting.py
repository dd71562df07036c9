"""Random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers

PARAMS = jnp.zeros(2)


def test_random_weights_are_new_at_every_step():
    tx = scalarizers.random_weighting(key=jax.random.key(0), num_losses=3)

    def step(state, _):
        return tx.update(PARAMS, state)[1], state.loss_weights

    scan = jax.jit(lambda: jax.lax.scan(step, tx.init(PARAMS), length=500)[1])
    weights = np.asarray(scan())
    np.testing.assert_allclose(np.sum(weights, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.mean(weights, axis=0), 1 / 3, atol=0.05)
    assert len(np.unique(weights[:, 0])) > 490
