"""The student's divergence from the teacher."""

import jax
import numpy as np
from scipy.special import softmax

from kdopt import losses
from tests.losses._inputs import token_logits


def test_is_kd_with_the_networks_exchanged(x64):
    s, t = token_logits()
    for tau in (1.0, 3.0):
        value = jax.jit(losses.reverse_kl)(s, t, temperature=tau)
        expected = jax.jit(losses.kd)(t, s, temperature=tau)
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_excluded_classes():
    s, t = np.float32([[1.0, 0.0, -np.inf]]), np.float32([[0.5, 1.0, 2.0]])
    value, slope = jax.jit(jax.value_and_grad(losses.reverse_kl))(s, t)
    p, q = softmax(s)[0, :2], softmax(t)[0, :2]
    expected = np.sum(p * (np.log(p) - np.log(q)))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all() and np.asarray(slope)[0, 2] == 0
    assert jax.jit(losses.reverse_kl)(t, s) == np.inf
