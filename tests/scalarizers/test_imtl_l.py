"""IMTL-L: the gradient of its objective."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers


def test_imtl_l_weights_are_the_gradient_of_its_objective():
    values, scales = jnp.array([2.0, 0.3]), jnp.array([0.1, -1.0])

    def objective(values, s):
        return jnp.sum(jnp.exp(s) * values - s)

    expected = jax.jit(jax.grad(objective))(values, scales)
    np.testing.assert_allclose(scalarizers.imtl_l_weights(scales), expected, rtol=1e-6)
