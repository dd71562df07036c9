"""DIST: correlations against NumPy's, and their invariances."""

import functools

import jax
import numpy as np
from scipy.special import softmax

from kdopt import losses
from tests.losses._inputs import logits


def test_against_numpy_correlations(x64):
    s, t = logits()
    p, q = (softmax(np.asarray(x) / 2, axis=1) for x in (s, t))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean(
        [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    )
    loss = functools.partial(losses.dist, inter_weight=2.0, intra_weight=0.5)
    value = jax.jit(loss)(s, t, temperature=2.0)
    np.testing.assert_allclose(value, 4 * (2 * inter + 0.5 * intra), rtol=1e-4)


def test_zero_for_equal_networks(x64):
    s = np.asarray(logits()[0])
    np.testing.assert_allclose(jax.jit(losses.dist)(s, s + 3), 0, atol=1e-5)


def test_one_example_has_no_correlation_within_a_class():
    s, t = (np.asarray(x)[:1] for x in logits(np.float32))
    loss = functools.partial(losses.dist, inter_weight=0.0)
    np.testing.assert_allclose(jax.jit(loss)(s, t), 1)
