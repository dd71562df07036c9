"""DTO-KD with more than two losses: equal relative decrease."""

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


@pytest.mark.parametrize("k", [3, 5, 8])
def test_no_loss_falls_by_a_smaller_fraction_than_those_with_weight(k, x64):
    values = np.random.default_rng(k).uniform(0.1, 10, size=k)
    matrices = grams(jacobians(k, 2 * k, count=4))
    found = batched(kdopt.dto_kd_weights, matrices, values=values)
    for gram, weights in zip(matrices, found, strict=True):
        fractions = gram @ weights / values
        square = weights @ gram @ weights
        assert (fractions >= square * (1 - 1e-8)).all()
        np.testing.assert_allclose(fractions[weights > 1e-9], square, rtol=1e-8)


def test_without_simplex_all_fractions_are_equal(x64):
    values = np.array([0.2, 1.0, 4.0, 30.0])
    gram = grams(jacobians(4, 9, count=1))[0]
    solve = jax.jit(kdopt.dto_kd_weights, static_argnames="simplex")
    weights = np.asarray(solve(gram, values, simplex=False))
    fractions = gram @ weights / values
    np.testing.assert_allclose(fractions, np.full(4, fractions[0]), rtol=1e-8)
