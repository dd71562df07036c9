"""FairGrad: the fixed point for many alphas, the two limits."""

import jax
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
    norms = np.array([1e-15, 1.0, 30.0])
    weights = jax.jit(kdopt.fairgrad_weights)(np.diag(norms**2), alpha=2.0)
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


def extreme_jacobians(k):
    """Gradients of norms from 1e-18 to 1e18, alike or up to 1e36 apart."""
    rng = np.random.default_rng(k)
    for spread in (0, 3, 9, 18):
        for center in (-18, -9, 0, 9, 18):
            rows = rng.normal(size=(k, 6)) - 0.8 * (spread % 2)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            powers = np.clip(center + rng.uniform(-spread, spread, size=k), -18, 18)
            yield rows * 10.0 ** powers[:, None]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_single_precision_over_all_norms(alpha, k):
    """Weights are finite and, in units of the update, those of double precision."""
    matrices = np.stack(list(extreme_jacobians(k)))
    norms = np.linalg.norm(matrices, axis=-1)
    units = matrices / norms[..., None]
    single = batched(kdopt.fairgrad_weights, grams(matrices), jnp.float32, alpha=alpha)
    with jax.enable_x64(True):
        double = batched(kdopt.fairgrad_weights, grams(matrices), alpha=alpha)
    assert np.all(np.isfinite(single))
    lengths, exact = single * norms, double * norms
    size = exact.max(axis=1, keepdims=True)
    np.testing.assert_allclose(lengths / size, exact / size, atol=2e-4)
    # The double is a solution: the rate that its weight asks for, to rounding of the
    # sums of which rates are made.
    falls = np.einsum("cij,cj->ci", grams(units), exact)
    terms = np.einsum("cij,cj->ci", np.abs(grams(units)), exact)
    with np.errstate(divide="ignore"):  # weights may be smaller than any number
        logs = -np.log(exact) / alpha + (1 / alpha - 1) * np.log(norms)
    counts = (exact > 0) & (logs < 600)
    asked = np.exp(np.where(counts, logs, 0))
    error = np.where(counts, np.abs(falls - asked), 0)
    assert np.all(error <= 1e-9 * (terms + np.where(counts, asked, 0)))


def test_opposite_short_gradients_stay_finite():
    """There is no solution, and what comes near it is larger than any number."""
    rows = np.array([[1e-18, 0.0], [-1e-18, 0.0]])
    weights = np.asarray(jax.jit(kdopt.fairgrad_weights)(rows @ rows.T, alpha=10.0))
    assert np.all(np.isfinite(weights) & (weights > 0))
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-5)
