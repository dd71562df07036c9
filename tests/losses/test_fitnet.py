"""FitNet: mean of squares, and what a mean over elements means for the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import paired_maps


def test_value_and_gradient(x64):
    s, t = map(np.asarray, paired_maps())
    value, slope = jax.jit(jax.value_and_grad(losses.fitnet))(s, t)
    np.testing.assert_allclose(value, np.mean((s - t) ** 2), rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * (s - t) / s.size, rtol=1e-12)


def test_channels_must_agree():
    with pytest.raises(ValueError, match="the same number of channels, got 2 and 3"):
        losses.fitnet(jnp.ones((1, 2, 2, 2)), jnp.ones((1, 2, 2, 3)))
