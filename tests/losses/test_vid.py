"""VID: a Gaussian likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from kdopt import losses
from tests.losses._inputs import paired_maps


def test_is_the_gaussian_likelihood(x64):
    mean, t = map(np.asarray, paired_maps())
    scale = np.linspace(-2.0, 3.0, 5)
    deviation = np.sqrt(np.logaddexp(0, scale) + 1e-5)
    expected = -np.mean(norm.logpdf(t, mean, deviation)) - np.log(2 * np.pi) / 2
    value = jax.jit(losses.vid)([mean], [scale], [t])
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_the_best_variance_is_the_mean_square(x64):
    mean, t = map(np.asarray, paired_maps())
    squares = np.mean((mean - t) ** 2, axis=(0, 1, 2))
    best = np.log(np.expm1(squares - 1e-5))
    slope = jax.jit(jax.grad(lambda x: losses.vid([mean], [x], [t])))(best)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_scales_must_pair():
    x = jnp.ones((1, 1, 1, 1))
    with pytest.raises(ValueError, match="one array per stage, got 0 for 1"):
        losses.vid([x], [], [x])
