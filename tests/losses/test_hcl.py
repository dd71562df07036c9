"""HCL: the pyramid by hand."""

import jax
import numpy as np

from kdopt import losses
from tests.losses._inputs import paired_maps


def test_pyramid_by_hand(x64):
    s, t = (np.asarray(x) for x in paired_maps())
    total, weights = 0.0, 0.0
    for k, n in enumerate((8, 4, 2, 1)):
        cell = 8 // n
        gap = (s - t).reshape(4, n, cell, n, cell, 5).mean((2, 4))
        total += 2.0**-k * np.mean(gap**2)
        weights += 2.0**-k
    value = jax.jit(losses.hcl)([s], [t])
    np.testing.assert_allclose(value, total / weights, rtol=1e-10)


def test_a_constant_gap_has_the_same_square_at_all_levels():
    x = np.zeros((2, 7, 3, 2), np.float32)
    np.testing.assert_allclose(jax.jit(losses.hcl)([x, x], [x + 3, x]), 9, rtol=1e-6)
