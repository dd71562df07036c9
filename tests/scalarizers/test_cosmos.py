"""COSMOS: losses on the ray feel the weighted sum alone."""

import jax
import numpy as np

from kdopt import scalarizers

cosmos_weights = jax.jit(scalarizers.cosmos_weights)


def test_on_the_ray_the_cosine_has_no_slope():
    values, preferences = np.float32([1, 3]), [0.25, 0.75]
    weights = cosmos_weights(values, preferences=np.float32(preferences), penalty=5.0)
    np.testing.assert_allclose(weights, preferences, rtol=1e-5)


def test_off_the_ray_the_lagging_loss_gains():
    balanced = cosmos_weights(np.float32([1, 1]))
    uneven = cosmos_weights(np.float32([1, 4]))
    assert uneven[1] > balanced[1] > uneven[0]
