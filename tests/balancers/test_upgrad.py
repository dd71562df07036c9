"""UPGrad: optimality of each projection, half of PCGrad, linearity."""

import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt._cone import dual_cone_point
from tests.balancers._inputs import batched, grams, jacobians, rates


@pytest.mark.parametrize(("k", "n"), [(3, 8), (5, 4), (8, 20)])
def test_projection_is_optimal(k, n, x64):
    """KKT: feasible, no conflict, and complementary."""
    matrices = jacobians(k, n, spread=2.0)
    floor = np.random.default_rng(k).uniform(0, 1, size=k)
    weights = batched(dual_cone_point, grams(matrices), floor=floor)
    added = weights - floor
    assert (added >= 0).all()
    norms = np.linalg.norm(matrices, axis=-1)
    falls = np.einsum("cij,cj->ci", grams(matrices), weights) / norms
    size = norms.max(axis=1, keepdims=True) * weights.max(axis=1, keepdims=True)
    assert (falls >= -1e-9 * size).all()
    assert (np.abs(added * falls) <= 1e-9 * size * (1 + added)).all()


def test_half_of_pcgrad_for_two():
    matrices = grams(jacobians(2, 3, spread=0.3))
    weights = batched(kdopt.upgrad_weights, matrices, reg_eps=0.0)
    expected = batched(kdopt.pcgrad_weights, matrices) / 2
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_no_loss_rises():
    matrices = jacobians(6, 12, spread=0.5)
    weights = batched(kdopt.upgrad_weights, grams(matrices), reg_eps=0.0)
    assert rates(matrices, weights).min() > -1e-4


@pytest.mark.parametrize("weights_fn", [kdopt.upgrad_weights, kdopt.dual_proj_weights])
def test_no_short_gradient_pays_for_a_long_one(weights_fn):
    """By default, and unlike the ridge of the reference, which lets the loss rise."""
    rows = np.array([[100.0, 0.0], [-0.9, np.sqrt(1 - 0.81)]])
    for reg_eps, least in ((0.0, -1e-6), (1e-4, -0.73)):
        weights = batched(weights_fn, grams(rows[None]), jnp.float32, reg_eps=reg_eps)
        assert rates(rows[None], weights).min() >= least
    assert rates(rows[None], weights).min() < -0.7
    default = batched(weights_fn, grams(rows[None]), jnp.float32)
    assert rates(rows[None], default).min() >= -1e-6


def test_linear_in_a_scaling_of_each_gradient(x64):
    matrix = jacobians(4, 6, count=1, spread=0.3)[0]
    one, two = np.random.default_rng(0).uniform(0.5, 2, size=(2, 4))

    def update(factors):
        rows = factors[:, None] * matrix
        weights = batched(kdopt.upgrad_weights, grams(rows[None]), reg_eps=0.0)
        return weights[0] @ rows

    expected = update(one) + 2 * update(two)
    np.testing.assert_allclose(update(one + 2 * two), expected, rtol=1e-8)


def test_the_ridge_and_the_switch_of_the_reference():
    gram = np.array([[[1e-6, -1e-6], [-1e-6, 1e-6]]])
    (off,) = batched(kdopt.upgrad_weights, gram, norm_eps=1e-4)
    np.testing.assert_allclose(off, [0.5, 0.5])
    # Half of 1 + 1 / (1 + 2 eps) each, for the ridge eps on a matrix of trace one.
    (on,) = batched(kdopt.upgrad_weights, gram, reg_eps=1e-2)
    np.testing.assert_allclose(on, (1 + 1 / 1.02) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="reg_eps must lie in"):
        kdopt.upgrad(reg_eps=-1.0)
