"""NST: kernels by loops, and both ways of computing it."""

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import maps


def discrepancy(s, t):
    """Maximum mean discrepancy from pairs of channels, one by one."""
    total = 0.0
    for a, b in zip(np.asarray(s), np.asarray(t), strict=True):
        u, v = (x.reshape(-1, x.shape[-1]).T for x in (a, b))
        u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))

        def mean_kernel(x, y):
            return np.mean([(p @ q) ** 2 for p in x for q in y])

        total += mean_kernel(u, u) + mean_kernel(v, v) - 2 * mean_kernel(u, v)
    return total / len(s)


# Sixteen positions, more than the channels; four, fewer than the five of the teacher.
@pytest.mark.parametrize("size", [4, 2])
def test_by_loops(x64, size):
    s, t = (np.asarray(x)[:, :size, :size] for x in maps())
    value = jax.jit(losses.nst)([s], [t])
    np.testing.assert_allclose(value, discrepancy(s, t), rtol=1e-10)


@pytest.mark.parametrize("size", [4, 1])
def test_order_and_scale_of_channels_are_not_seen(x64, size):
    s = np.asarray(maps()[0])[:, :size, :size]
    value = jax.jit(losses.nst)([s], [2 * s[..., ::-1]])
    np.testing.assert_allclose(value, 0, atol=1e-14)
