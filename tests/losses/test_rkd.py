"""RKD: by loops, and the motions it does not see."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import huber
from scipy.stats import ortho_group

from kdopt import losses
from tests.losses._inputs import vectors


def distances(x):
    d = np.array([[np.linalg.norm(a - b) for a in x] for b in x])
    return d / d[d > 0].mean()


def cosine(x, i, j, k):
    a, b = x[j] - x[i], x[k] - x[i]
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / norms if norms else 0.0


def by_loops(s, t):
    """Both losses, in float64."""
    s, t = (np.asarray(x, np.float64) for x in (s, t))
    triples = itertools.product(range(len(s)), repeat=3)
    angles = [huber(1.0, cosine(s, *ijk) - cosine(t, *ijk)) for ijk in triples]
    return np.mean(huber(1.0, distances(s) - distances(t))), np.mean(angles)


@jax.jit
def parts(s, t):
    return losses.rkd_distance(s, t), losses.rkd_angle(s, t)


differentiated = jax.jit(jax.grad(losses.rkd))


def test_by_loops(x64):
    np.testing.assert_allclose(parts(*vectors()), by_loops(*vectors()), rtol=1e-10)


def test_rotation_shift_and_scale_are_not_seen(x64):
    s = np.asarray(vectors()[0])
    moved = 3 * s @ ortho_group.rvs(6, random_state=0) + 2
    np.testing.assert_allclose(jax.jit(losses.rkd)(s, moved), 0, atol=1e-20)


def features(scale, kind):
    """Six examples of five features, with something that a common floor would drown."""
    x = scale * np.random.default_rng(0).normal(size=(6, 5))
    if kind == "offset":
        x += 1e3 * scale
    elif kind == "offset, near its last digits":
        x += 1e5 * scale
    elif kind == "one far away":
        x[0] += 1e7 * scale
    elif kind == "one feature far away":
        x[:, 2] += 1e7 * scale
    elif kind == "features of many sizes":
        x *= np.array([1e-6, 1e-3, 1.0, 1e3, 1e6])
    elif kind == "copies":
        x[3] = x[1]
    return x.astype(np.float32)


KINDS = (
    "plain",
    "offset",
    "offset, near its last digits",
    "one far away",
    "one feature far away",
    "features of many sizes",
    "copies",
)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_at_any_scale_and_offset(kind):
    """Of the same numbers: what lies near in them is told apart all the same."""
    teacher = np.cos(np.arange(30.0)).reshape(6, 5).astype(np.float32)
    for scale in (1e-6, 1.0, 1e6):
        student = features(scale, kind)
        for pair in ((student, teacher), (teacher, student)):
            np.testing.assert_allclose(parts(*pair), by_loops(*pair), rtol=1e-4)
            with jax.enable_x64(True):
                expected = differentiated(*(x.astype(np.float64) for x in pair))
            error = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(
                differentiated(*pair), expected, rtol=0, atol=error
            )


def test_equal_examples_keep_their_distance_of_zero():
    s = jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    t = jnp.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    slope = np.asarray(differentiated(s, t))
    assert np.isfinite(slope).all()
    # The copies are alike, and so are the forces of their third.
    assert np.any(slope[2])
