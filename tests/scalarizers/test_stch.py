"""STCH: between the mean and the maximum."""

import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers


def test_stch_goes_from_the_mean_to_the_maximum():
    values = jnp.array([1.0, 3.0])
    smooth = scalarizers.stch_weights(values, mu=1e6)
    sharp = scalarizers.stch_weights(values, mu=1e-6)
    np.testing.assert_allclose(smooth, [0.25, 0.25], rtol=1e-5)
    np.testing.assert_allclose(sharp, [0.0, 0.5])
