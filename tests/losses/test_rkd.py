"""RKD: by loops, and the motions it does not see."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import huber
from scipy.stats import ortho_group

from kdopt import losses
from tests.losses._inputs import vectors


def test_by_loops(x64):
    s, t = (np.asarray(x) for x in vectors())

    def distances(x):
        d = np.array([[np.linalg.norm(a - b) for a in x] for b in x])
        return d / d[d > 0].mean()

    def cosine(x, i, j, k):
        a, b = x[j] - x[i], x[k] - x[i]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / norms if norms else 0.0

    expected = np.mean(huber(1.0, distances(s) - distances(t)))
    np.testing.assert_allclose(losses.rkd_distance(*vectors()), expected, rtol=1e-10)
    triples = itertools.product(range(4), repeat=3)
    expected = np.mean(
        [huber(1.0, cosine(s, *ijk) - cosine(t, *ijk)) for ijk in triples]
    )
    np.testing.assert_allclose(losses.rkd_angle(*vectors()), expected, rtol=1e-10)


def test_rotation_shift_and_scale_are_not_seen(x64):
    s, _ = vectors()
    moved = 3 * s @ ortho_group.rvs(6, random_state=0) + 2
    np.testing.assert_allclose(losses.rkd(s, jnp.asarray(moved)), 0, atol=1e-20)


def test_equal_examples_keep_their_distance_of_zero():
    s = jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    t = jnp.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    slope = jax.jit(jax.grad(losses.rkd))(s, t)
    assert np.isfinite(slope).all()
    # The copies are alike, and so are the forces of their third.
    assert np.any(slope[2])
