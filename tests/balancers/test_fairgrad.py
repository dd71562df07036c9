"""FairGrad: the fixed point for many alphas, the two limits."""

import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians, rates


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("k", [2, 5])
def test_fixed_point_equation(alpha, k, x64):
    matrices = jacobians(k, 4 * k)
    weights = batched(kdopt.fairgrad_weights, grams(matrices), alpha=alpha)
    falls = np.einsum("cij,cj->ci", grams(matrices), weights)
    np.testing.assert_allclose(falls**alpha * weights, 1, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.25, 1.0, 4.0])
def test_no_loss_rises(alpha):
    matrices = jacobians(4, 8)
    weights = batched(kdopt.fairgrad_weights, grams(matrices), alpha=alpha)
    assert rates(matrices, weights).min() > 0


def test_alpha_one_is_nash():
    matrices = grams(jacobians(3, 6))
    fair = batched(kdopt.fairgrad_weights, matrices, alpha=1.0)
    nash = batched(kdopt.nash_mtl_weights, matrices, max_norm=None)
    np.testing.assert_allclose(fair, nash, rtol=1e-6)


def test_orthogonal_gradients_in_closed_form():
    norms = jnp.array([1e-15, 1.0, 30.0])
    weights = kdopt.fairgrad_weights(jnp.diag(norms**2), alpha=2.0)
    np.testing.assert_allclose(weights, norms ** (-4 / 3), rtol=1e-5)


def test_from_the_sum_to_the_worst_off(x64):
    """The worst rate, relative to the length of the update, grows with alpha."""
    matrices = jacobians(3, 9, count=8)
    worst = []
    for alpha in (0.1, 1.0, 10.0):
        weights = batched(kdopt.fairgrad_weights, grams(matrices), alpha=alpha)
        updates = np.einsum("ck,ckn->cn", weights, matrices)
        falls = np.einsum("ckn,cn->ck", matrices, updates)
        worst.append(falls.min(axis=1) / np.linalg.norm(updates, axis=1))
    assert (worst[0] <= worst[1]).all()
    assert (worst[1] <= worst[2]).all()
    shortest = batched(kdopt.min_norm_weights, grams(matrices))
    best = np.linalg.norm(np.einsum("ck,ckn->cn", shortest, matrices), axis=1)
    np.testing.assert_allclose(worst[2], best, rtol=0.2)


def test_alpha_out_of_range():
    with pytest.raises(ValueError, match="alpha must lie in"):
        kdopt.fairgrad(alpha=0.0)
