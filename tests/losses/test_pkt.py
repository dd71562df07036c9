"""PKT: by loops, and its invariance."""

import functools

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import vectors


def test_by_loops(x64):
    def neighbours(x):
        x = np.asarray(x)
        close = np.array(
            [[1 + a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in x] for a in x]
        )
        return close / close.sum(1, keepdims=True)

    s, t = vectors()
    p, q = neighbours(s), neighbours(t)
    expected = np.mean(q * np.log(q / p))
    value = jax.jit(functools.partial(losses.pkt, eps=0.0))(s, t)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("gap", [1e-5, 1e-3, 0.1])
def test_single_precision_near_agreement(gap):
    """Against double precision on the same numbers, and never negative."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(16, 8)).astype(np.float32)
    s = (t + gap * rng.normal(size=t.shape)).astype(np.float32)
    value = jax.jit(losses.pkt)(s, t)
    with jax.enable_x64(True):
        expected = jax.jit(losses.pkt)(*(x.astype(np.float64) for x in (s, t)))
    np.testing.assert_allclose(value, expected, rtol=max(1e-4, 1e-7 / gap * 2))
    assert value >= 0


def test_lengths_are_not_seen(x64):
    s = np.asarray(vectors()[0])
    lengths = np.array([[1.0], [0.1], [5.0], [2.0]])
    np.testing.assert_allclose(jax.jit(losses.pkt)(lengths * s, s), 0, atol=1e-15)


def test_a_zero_vector_gets_no_gradient():
    s, t = vectors(np.float32)
    zeroed = np.where(np.arange(4)[:, None] == 1, np.float32(0), s)
    slope = np.asarray(jax.jit(jax.grad(losses.pkt))(zeroed, t))
    np.testing.assert_array_equal(slope[1], 0)
    assert np.isfinite(slope).all()
