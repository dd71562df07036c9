"""VkD: the standardised target."""

import jax.numpy as jnp
import numpy as np
from scipy.special import huber

from kdopt import losses
from tests.losses._inputs import vectors


def test_by_numpy(x64):
    s, t = vectors()
    t = np.asarray(3 * t[:, :6])
    target = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5)
    expected = np.mean(huber(1.0, np.asarray(3 * s) - target))
    np.testing.assert_allclose(losses.vkd(3 * s, jnp.asarray(t)), expected, rtol=1e-10)
