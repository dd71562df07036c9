"""Aligned-MTL: orthogonal, equally long, with the preference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians

REDUCE = {"min": np.min, "median": lambda v: np.sort(v)[(len(v) - 1) // 2]}
REDUCE["mean"] = np.mean


@pytest.mark.parametrize("scale", REDUCE)
def test_aligned_gradients_are_orthogonal_and_equally_long(scale, x64):
    """The weights for unit preferences are the rows of the balance matrix."""
    gram = grams(jacobians(4, 9, count=1))[0]
    weights = functools.partial(kdopt.aligned_mtl_weights, scale=scale)
    rows = jax.vmap(lambda row: weights(jnp.asarray(gram), preference=row))
    balance = np.asarray(jax.jit(rows)(np.eye(4)))
    length = REDUCE[scale](np.linalg.eigvalsh(gram))
    aligned = balance @ gram @ balance.T
    np.testing.assert_allclose(aligned, length * np.eye(4), atol=1e-8 * length)


def test_closed_form_of_two():
    for gram, weights in zip(
        grams(jacobians(2, 6, count=8)),
        batched(kdopt.aligned_mtl_weights, grams(jacobians(2, 6, count=8))),
        strict=True,
    ):
        (a, c), (_, b) = gram
        d = np.sqrt(a * b - c**2)
        least = (a + b - np.sqrt((a - b) ** 2 + 4 * c**2)) / 2
        factor = np.sqrt(least) / (2 * d * np.sqrt(a + b + 2 * d))
        expected = factor * np.array([b + d - c, a + d - c])
        np.testing.assert_allclose(weights, expected, rtol=1e-3)


def test_dependent_gradients_count_once():
    weights = jax.jit(kdopt.aligned_mtl_weights)(np.ones((2, 2)))
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-5)


def test_wrong_preferences():
    with pytest.raises(ValueError, match="one number per loss, 2 of them"):
        kdopt.aligned_mtl(preference=[1.0])
    with pytest.raises(ValueError, match="must not be negative"):
        kdopt.aligned_mtl(preference=[1.0, -1.0])
