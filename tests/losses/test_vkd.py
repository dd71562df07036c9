"""VkD: the standardised target."""

import jax
import numpy as np
from scipy.special import huber

from kdopt import losses
from tests.losses._inputs import vectors


def test_by_numpy(x64):
    s, t = (3 * np.asarray(x)[:, :6] for x in vectors())
    target = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5)
    expected = np.mean(huber(1.0, s - target))
    np.testing.assert_allclose(jax.jit(losses.vkd)(s, t), expected, rtol=1e-10)
