"""DIST: correlations against NumPy's, and their invariances."""

import jax
import numpy as np

from kdopt import losses
from tests.losses._inputs import logits


def test_against_numpy_correlations(x64):
    s, t = logits()
    p, q = np.asarray(jax.nn.softmax(s / 2)), np.asarray(jax.nn.softmax(t / 2))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean(
        [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    )
    value = losses.dist(s, t, inter_weight=2.0, intra_weight=0.5, temperature=2.0)
    np.testing.assert_allclose(value, 4 * (2 * inter + 0.5 * intra), rtol=1e-4)


def test_zero_for_equal_networks(x64):
    s, _ = logits()
    np.testing.assert_allclose(losses.dist(s, s + 3), 0, atol=1e-5)


def test_one_example_has_no_correlation_within_a_class():
    s, t = (x[:1] for x in logits(np.float32))
    np.testing.assert_allclose(losses.dist(s, t, inter_weight=0.0), 1)
