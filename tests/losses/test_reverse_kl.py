"""The student's divergence from the teacher."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import losses
from tests.losses._inputs import token_logits


def test_is_kd_with_the_networks_exchanged(x64):
    s, t = token_logits()
    for tau in (1.0, 3.0):
        value = losses.reverse_kl(s, t, temperature=tau)
        np.testing.assert_allclose(value, losses.kd(t, s, temperature=tau), rtol=1e-12)


def test_excluded_classes():
    s, t = jnp.array([[1.0, 0.0, -jnp.inf]]), jnp.array([[0.5, 1.0, 2.0]])
    value, slope = jax.jit(jax.value_and_grad(losses.reverse_kl))(s, t)
    p, q = jax.nn.softmax(s)[0, :2], jax.nn.softmax(t)[0, :2]
    expected = jnp.sum(p * (jnp.log(p) - jnp.log(q)))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all() and slope[0, 2] == 0
    assert losses.reverse_kl(t, s) == jnp.inf
