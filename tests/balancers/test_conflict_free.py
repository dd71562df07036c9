"""ConFIG: equal cosines, the length, the momentum version step by step."""

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians, rates

solve = jax.jit(kdopt.conflict_free_weights, static_argnames="length")


@pytest.mark.parametrize("k", [2, 3, 6])
def test_cosines_are_equal_and_the_length_is_the_sum_of_projections(k, x64):
    matrices = jacobians(k, 3 * k, spread=3.0)
    weights = batched(kdopt.conflict_free_weights, grams(matrices))
    cosines = rates(matrices, weights)
    np.testing.assert_allclose(cosines, np.repeat(cosines[:, :1], k, axis=1), rtol=1e-7)
    assert (cosines > 0).all()
    updates = np.einsum("ck,ckn->cn", weights, matrices)
    lengths = np.linalg.norm(updates, axis=1)
    expected = np.sum(cosines * np.linalg.norm(matrices, axis=-1), axis=1)
    np.testing.assert_allclose(lengths, expected, rtol=1e-7)


def test_preference_sets_the_ratio_of_the_cosines(x64):
    matrices = jacobians(3, 9)
    preference = np.array([1.0, 2.0, 0.5])
    weights = batched(
        kdopt.conflict_free_weights, grams(matrices), preference=list(preference)
    )
    ratios = rates(matrices, weights) / preference
    np.testing.assert_allclose(ratios, np.repeat(ratios[:, :1], 3, axis=1), rtol=1e-8)


def test_opposite_gradients_have_no_such_direction():
    gram = np.array([[1.0, -3.0], [-3.0, 9.0]])
    np.testing.assert_array_equal(solve(gram), [0.0, 0.0])


@pytest.mark.parametrize(
    ("length", "mean"),
    [
        ("min", np.min),
        ("max", np.max),
        ("arithmetic", np.mean),
        ("geometric", lambda n: np.exp(np.mean(np.log(n)))),
        ("harmonic", lambda n: 1 / np.mean(1 / n)),
    ],
)
def test_length_of_the_update(x64, length, mean):
    """The direction stays; gradients that are zero do not count."""
    rows = np.random.default_rng(0).normal(size=(4, 6)) * [[1], [10], [0.1], [0]]
    plain = np.asarray(solve(rows @ rows.T)) @ rows
    update = np.asarray(solve(rows @ rows.T, length=length)) @ rows
    size = np.linalg.norm(update)
    np.testing.assert_allclose(size, mean(np.linalg.norm(rows[:3], axis=1)), rtol=1e-9)
    np.testing.assert_allclose(update / size, plain / np.linalg.norm(plain), atol=1e-9)
