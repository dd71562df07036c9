"""Half the sum of the differences of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import losses
from tests.losses._inputs import token_logits


def test_bounds_and_symmetry(x64):
    (s, t), loss = token_logits(), jax.jit(losses.total_variation)
    np.testing.assert_allclose(loss(s, t), loss(t, s), rtol=1e-12)
    apart = 1e4 * np.eye(2)
    assert loss(apart, apart[::-1]) == 1
    assert loss(s, s) == 0


def test_excluded_classes():
    s, t = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.0, 0.0, 0.0]])
    for pair in ((s, t), (t, s)):
        value, slope = jax.jit(jax.value_and_grad(losses.total_variation))(*pair)
        np.testing.assert_allclose(value, 1 / 3, rtol=1e-6)
        assert np.isfinite(slope).all()
