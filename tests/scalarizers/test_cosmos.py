"""COSMOS: losses on the ray feel the weighted sum alone."""

import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers


def test_on_the_ray_the_cosine_has_no_slope():
    values, preferences = jnp.array([1.0, 3.0]), [0.25, 0.75]
    weights = scalarizers.cosmos_weights(values, preferences=preferences, penalty=5.0)
    np.testing.assert_allclose(weights, preferences, rtol=1e-5)


def test_off_the_ray_the_lagging_loss_gains():
    balanced = scalarizers.cosmos_weights(jnp.array([1.0, 1.0]))
    uneven = scalarizers.cosmos_weights(jnp.array([1.0, 4.0]))
    assert uneven[1] > balanced[1] > uneven[0]
