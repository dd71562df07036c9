"""STCH: between the mean and the maximum."""

import jax
import numpy as np

from kdopt import scalarizers


def test_stch_goes_from_the_mean_to_the_maximum():
    values, stch_weights = np.float32([1, 3]), jax.jit(scalarizers.stch_weights)
    smooth = stch_weights(values, mu=1e6)
    sharp = stch_weights(values, mu=1e-6)
    np.testing.assert_allclose(smooth, [0.25, 0.25], rtol=1e-5)
    np.testing.assert_allclose(sharp, [0.0, 0.5])
