"""Finite weights and updates on every Gram matrix that training may produce."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams

KEY = jax.random.key(0)


def gradvac_weights(gram):
    return kdopt.gradvac_weights(gram, jnp.full_like(gram, 0.9), KEY)[0]


def modo_weights(gram):
    return kdopt.modo_weights(gram, jnp.full(len(gram), 1 / len(gram), gram.dtype))


def dto_kd_weights(gram, **kwargs):
    values = jnp.linspace(0.5, 2, len(gram), dtype=gram.dtype)
    return kdopt.dto_kd_weights(gram, values, **kwargs)


METHODS = {
    "aligned_mtl": kdopt.aligned_mtl_weights,
    "cagrad": kdopt.cagrad_weights,
    "cagrad_wide": functools.partial(kdopt.cagrad_weights, c=2.0),
    "conflict_free": kdopt.conflict_free_weights,
    "db_mtl": kdopt.db_mtl_weights,
    "dto_kd": dto_kd_weights,
    "dto_kd_convex": functools.partial(dto_kd_weights, rescale="convex"),
    "dto_kd_theorem": functools.partial(dto_kd_weights, simplex=False),
    "dual_proj": kdopt.dual_proj_weights,
    "dual_proj_ridge": functools.partial(kdopt.dual_proj_weights, reg_eps=1e-4),
    "fairgrad": kdopt.fairgrad_weights,
    "fairgrad_half": functools.partial(kdopt.fairgrad_weights, alpha=0.5),
    "fairgrad_ten": functools.partial(kdopt.fairgrad_weights, alpha=10.0),
    "gradvac": gradvac_weights,
    "imtl_g": kdopt.imtl_g_weights,
    "min_norm": kdopt.min_norm_weights,
    "min_norm_by_norm": functools.partial(kdopt.min_norm_weights, normalize="norm"),
    "modo": modo_weights,
    "nash_mtl": kdopt.nash_mtl_weights,
    "pcgrad": functools.partial(kdopt.pcgrad_weights, key=KEY),
    "sdmgrad": kdopt.sdmgrad_weights,
    "upgrad": kdopt.upgrad_weights,
    "upgrad_ridge": functools.partial(kdopt.upgrad_weights, reg_eps=1e-4),
}


def edge_jacobians(k):
    """Zero, equal, parallel, opposite and stationary gradients at many scales."""
    rng = np.random.default_rng(k)
    base = rng.normal(size=(k, 6))
    equal = np.tile(base[:1], (k, 1))
    factors = np.linspace(0.5, 3, k)[:, None]
    signs = np.where(np.arange(k) % 2, -1, 1)[:, None]
    one_zero, alone = base.copy(), np.zeros_like(base)
    one_zero[0], alone[-1] = 0, base[-1]
    kinds = [
        np.zeros_like(base),
        one_zero,
        alone,
        equal,
        factors * equal,
        signs * equal,
        signs * factors * equal,
        base - base.mean(axis=0),
        base * 10.0 ** np.linspace(-18, 18, k)[:, None],
        base @ np.diag([1, 1, 0, 0, 0, 0]),
    ]
    scales = (1e-18, 1e-9, 1.0, 1e9, 1e18)
    return np.stack([np.clip(m * s, -1e18, 1e18) for m in kinds for s in scales])


@functools.cache
def single_precision(name, k):
    """Weights of the edge cases and of the extreme ones, by one program."""
    edges, extremes = edge_jacobians(k), extreme_jacobians(k)
    matrices = grams(np.concatenate([edges, extremes]))
    return np.split(batched(METHODS[name], matrices, jnp.float32), [len(edges)])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("k", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_finite(name, k):
    matrices = edge_jacobians(k)
    weights, _ = single_precision(name, k)
    assert np.isfinite(weights).all()
    updates = np.einsum("ck,ckn->cn", weights, matrices)
    assert np.isfinite(updates.astype(np.float32)).all()


def extreme_jacobians(k):
    """Gradients of norms from 1e-18 to 1e18: all alike, and up to 1e36 apart."""
    scales = [
        1e-18 * np.linspace(1, 1.5, k),
        1e18 * np.linspace(0.6, 1, k),
        np.geomspace(1e-18, 1e18, k),
        np.geomspace(1e18, 1e-18, k),
        np.geomspace(1e-18, 1e-9, k),
        np.geomspace(1e18, 1e9, k),
        np.where(np.arange(k) == 0, 1e-18, 1e18),
        np.where(np.arange(k) == 0, 1e18, 1e-18),
    ]
    rng = np.random.default_rng(k)
    units = rng.normal(size=(2, k, 6))
    units[1] -= 0.9 * units[1].mean(axis=0)  # in conflict
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    return np.stack([rows * norms[:, None] for rows in units for norms in scales])


NOT_COMPARED = {"modo", "aligned_mtl"}
"""The step of the first depends on the scale, and goes far beyond the simplex here; the
second counts as zero what is below the rounding of its largest eigenvalue."""


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOT_COMPARED))
@pytest.mark.parametrize("k", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_entries_from_1e_36_to_1e_36(name, k):
    """No solver overflows or underflows inside: weights as in double precision."""
    matrices = extreme_jacobians(k)
    _, single = single_precision(name, k)
    with jax.enable_x64(True):
        double = batched(METHODS[name], grams(matrices))
    assert np.isfinite(single).all()
    norms = np.linalg.norm(matrices, axis=-1)
    size = np.max(np.abs(double * norms), axis=1, keepdims=True)
    np.testing.assert_allclose(single * norms / size, double * norms / size, atol=2e-4)


POLICIES = ("gradual", "fast", "norm_balance", "safe", "cosine")


@pytest.mark.parametrize("policy", POLICIES)
def test_lambda_for_entries_from_1e_36_to_1e_36(policy):
    fn = functools.partial(kdopt.dynamic_lambda_weights, policy=policy)
    matrices = extreme_jacobians(2)
    single = batched(fn, grams(matrices), jnp.float32)
    with jax.enable_x64(True):
        double = batched(fn, grams(matrices))
    norms = np.linalg.norm(matrices, axis=-1)
    size = np.max(np.abs(double * norms), axis=1, keepdims=True)
    np.testing.assert_allclose(single * norms / size, double * norms / size, atol=2e-4)


@pytest.mark.parametrize("k", [3, 4])
def test_krum_for_entries_from_1e_36_to_1e_36(k):
    fn = functools.partial(kdopt.krum_weights, num_byzantine=0)
    matrices = extreme_jacobians(k)
    single = batched(fn, grams(matrices), jnp.float32)
    with jax.enable_x64(True):
        double = batched(fn, grams(matrices))
    np.testing.assert_array_equal(single[:2], double[:2])
    np.testing.assert_allclose(single.sum(axis=1), 1)
