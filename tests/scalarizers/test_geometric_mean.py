"""GLS: blind to factors of single losses."""

import jax
import numpy as np

from kdopt import scalarizers


def test_geometric_mean_ignores_factors_of_single_losses():
    values, factors = np.float32([2, 0.5]), np.float32([100, 1e-3])
    weights = jax.jit(scalarizers.geometric_mean_weights)
    before = np.asarray(weights(values))
    after = np.asarray(weights(values * factors)) * factors
    np.testing.assert_allclose(after / after[0], before / before[0], rtol=1e-5)
