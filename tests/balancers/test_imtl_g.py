"""IMTL-G: equal projections on all unit gradients."""

import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


@pytest.mark.parametrize("k", [2, 3, 6])
def test_equal_projections(k, x64):
    matrices = jacobians(k, 3 * k, spread=4.0)
    weights = batched(kdopt.imtl_g_weights, grams(matrices))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
    norms = np.linalg.norm(matrices, axis=-1)
    products = np.einsum("cij,cj->ci", grams(matrices), weights) / norms
    expected = np.repeat(products[:, :1], k, axis=1)
    np.testing.assert_allclose(products, expected, rtol=1e-7)


def test_bisector_of_two():
    matrices = jacobians(2, 4)
    norms = np.linalg.norm(matrices, axis=-1)
    expected = norms[:, ::-1] / norms.sum(axis=1, keepdims=True)
    weights = batched(kdopt.imtl_g_weights, grams(matrices))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
