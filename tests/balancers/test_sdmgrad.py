"""SDMGrad: closed form, its two limits, the floor under the weights."""

import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


def test_closed_form_of_two(x64):
    matrices = grams(jacobians(2, 4))
    rho = 0.3
    weights = batched(kdopt.sdmgrad_weights, matrices, rho=rho)
    a, b, c = matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 1]
    first = np.clip((b - c - rho / 2 * (a - b)) / (a + b - 2 * c), 0, 1)
    expected = (np.stack([first, 1 - first], axis=1) + rho / 2) / (1 + rho)
    np.testing.assert_allclose(weights, expected, rtol=1e-8)


def test_least_norm_with_a_floor(x64):
    """Optimal over weights of at least rho p / (1 + rho): no exchange helps."""
    matrices = jacobians(5, 8)
    p, rho = np.array([0.1, 0.2, 0.3, 0.3, 0.1]), 0.5
    weights = batched(
        kdopt.sdmgrad_weights, grams(matrices), rho=rho, preference=list(p)
    )
    floor = rho * p / (1 + rho)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
    assert (weights >= floor - 1e-12).all()
    slopes = np.einsum("cij,cj->ci", grams(matrices), weights)
    free = weights > floor + 1e-9
    least = np.where(free, slopes, -np.inf).max(axis=1)
    assert (slopes.min(axis=1) >= least - 1e-8 * np.abs(slopes).max(axis=1)).all()


def test_limits():
    matrices = grams(jacobians(3, 6))
    none = batched(kdopt.sdmgrad_weights, matrices, rho=0.0)
    expected = batched(kdopt.min_norm_weights, matrices)
    np.testing.assert_allclose(none, expected, atol=1e-5)
    much = batched(kdopt.sdmgrad_weights, matrices, rho=1e4)
    np.testing.assert_allclose(much, 1 / 3, rtol=1e-3)
    with pytest.raises(ValueError, match="rho must lie in"):
        kdopt.sdmgrad(rho=-1.0)
