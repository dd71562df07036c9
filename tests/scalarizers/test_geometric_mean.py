"""GLS: blind to factors of single losses."""

import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers


def test_geometric_mean_ignores_factors_of_single_losses():
    values, factors = jnp.array([2.0, 0.5]), jnp.array([100.0, 1e-3])
    before = scalarizers.geometric_mean_weights(values)
    after = scalarizers.geometric_mean_weights(values * factors) * factors
    np.testing.assert_allclose(after / after[0], before / before[0], rtol=1e-5)
