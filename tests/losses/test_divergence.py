"""Probabilities as logarithms, against plain probabilities and beyond them."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import rel_entr

from kdopt.losses._divergence import kl_divergence, split_target


def test_split_against_probabilities():
    logits = jnp.array([[1.0, -2.0, 0.5, 3.0]])
    is_target = jnp.array([[False, True, False, False]])
    p = np.asarray(jax.nn.softmax(logits))[0]
    binary, others = split_target(logits, is_target)
    np.testing.assert_allclose(jnp.exp(binary[0]), [p[1], 1 - p[1]], rtol=1e-6)
    expected = np.where([1, 0, 1, 1], p, 0) / (1 - p[1])
    np.testing.assert_allclose(jnp.exp(others[0]), expected, rtol=1e-6)


def test_rest_of_a_certain_prediction_keeps_its_digits():
    # 1 - p of the target is 0 in float32; its logarithm is -1000 all the same.
    binary, _ = split_target(jnp.array([[1e3, 0.0]]), jnp.array([[True, False]]))
    np.testing.assert_allclose(binary, [[0, -1e3]])


def test_kl_against_scipy_and_with_unknown_classes():
    q, p = np.array([[0.2, 0.3, 0.5]]), np.array([[0.6, 0.1, 0.3]])
    value = kl_divergence(jnp.log(jnp.asarray(q)), jnp.log(jnp.asarray(p)))
    np.testing.assert_allclose(value, rel_entr(q, p).sum(1), rtol=1e-6)
    q, p = jnp.array([[0.0, -jnp.inf]]), jnp.log(jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(kl_divergence(q, p), [np.log(4)], rtol=1e-6)
