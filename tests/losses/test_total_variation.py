"""Half the sum of the differences of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import losses
from tests.losses._inputs import token_logits


def test_bounds_and_symmetry(x64):
    s, t = token_logits()
    np.testing.assert_allclose(
        losses.total_variation(s, t), losses.total_variation(t, s), rtol=1e-12
    )
    apart = 1e4 * jnp.eye(2)
    assert losses.total_variation(apart, apart[::-1]) == 1
    assert losses.total_variation(s, s) == 0


def test_excluded_classes():
    s, t = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.0, 0.0, 0.0]])
    for pair in ((s, t), (t, s)):
        value, slope = jax.jit(jax.value_and_grad(losses.total_variation))(*pair)
        np.testing.assert_allclose(value, 1 / 3, rtol=1e-6)
        assert np.isfinite(slope).all()
