"""DOT for LARS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_lars_with_delta_is_dot_on_scaled_gradients(standard):
    params = {"w": jnp.array([3.0, 4.0])}
    grads = ({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-1.0, 2.0])})
    tx = kdopt.dot_lars(1.0, trust_coefficient=0.1)
    step, state = jax.jit(tx.update), tx.init(params)
    _, state = step(grads, state, params)
    _, state = jax.device_get(step(grads, state, params))
    # |params| = 5 and |g| = 2, so every gradient is scaled by -0.25.
    np.testing.assert_allclose(state.traces[0]["w"], [-0.25 * 1.825, 0], rtol=1e-5)
    np.testing.assert_allclose(state.traces[1]["w"][1], -0.5 * 1.975, rtol=1e-5)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(grads, state)
