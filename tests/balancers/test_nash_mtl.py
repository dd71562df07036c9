"""Nash-MTL: the fixed point, its closed form for two, its length."""

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_fixed_point_equation(k, x64):
    matrices = jacobians(k, 2 * k, spread=3.0)
    weights = batched(kdopt.nash_mtl_weights, grams(matrices), max_norm=None)
    assert (weights > 0).all()
    products = weights * np.einsum("cij,cj->ci", grams(matrices), weights)
    np.testing.assert_allclose(products, 1, rtol=1e-7)
    lengths = np.linalg.norm(np.einsum("ck,ckn->cn", weights, matrices), axis=1)
    np.testing.assert_allclose(lengths, np.sqrt(k), rtol=1e-7)


def test_closed_form_of_two():
    matrices = jacobians(2, 3)
    weights = batched(kdopt.nash_mtl_weights, grams(matrices), max_norm=None)
    norms = np.linalg.norm(matrices, axis=-1)
    cosine = np.sum(matrices[:, 0] * matrices[:, 1], axis=1) / norms.prod(axis=1)
    expected = 1 / norms / np.sqrt(1 + cosine)[:, None]
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_scaling_a_loss_changes_nothing():
    matrices = jacobians(3, 8)
    factors = np.array([1e-4, 1.0, 1e4])[:, None]
    first, second = (
        np.einsum("ck,ckn->cn", batched(kdopt.nash_mtl_weights, grams(m)), m)
        for m in (matrices, factors * matrices)
    )
    np.testing.assert_allclose(second, first, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("max_norm", [0.5, 1.0])
def test_length_is_bounded(max_norm):
    matrices = jacobians(4, 9)
    weights = batched(kdopt.nash_mtl_weights, grams(matrices), max_norm=max_norm)
    lengths = np.linalg.norm(np.einsum("ck,ckn->cn", weights, matrices), axis=1)
    np.testing.assert_allclose(lengths, max_norm, rtol=1e-4)


def test_opposite_gradients_cancel():
    gram = np.array([[1.0, -3.0], [-3.0, 9.0]])
    weights = np.asarray(jax.jit(kdopt.nash_mtl_weights)(gram))
    np.testing.assert_allclose(weights[0] / weights[1], 3, rtol=1e-3)
    with pytest.raises(ValueError, match="max_norm must lie in"):
        kdopt.nash_mtl(max_norm=0.0)
