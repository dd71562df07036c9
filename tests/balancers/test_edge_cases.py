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


METHODS = {
    "aligned_mtl": kdopt.aligned_mtl_weights,
    "cagrad": kdopt.cagrad_weights,
    "cagrad_wide": functools.partial(kdopt.cagrad_weights, c=2.0),
    "conflict_free": kdopt.conflict_free_weights,
    "db_mtl": kdopt.db_mtl_weights,
    "dual_proj": kdopt.dual_proj_weights,
    "dual_proj_exact": functools.partial(kdopt.dual_proj_weights, reg_eps=0.0),
    "fairgrad": kdopt.fairgrad_weights,
    "fairgrad_half": functools.partial(kdopt.fairgrad_weights, alpha=0.5),
    "gradvac": gradvac_weights,
    "imtl_g": kdopt.imtl_g_weights,
    "min_norm": kdopt.min_norm_weights,
    "modo": modo_weights,
    "nash_mtl": kdopt.nash_mtl_weights,
    "pcgrad": functools.partial(kdopt.pcgrad_weights, key=KEY),
    "sdmgrad": kdopt.sdmgrad_weights,
    "upgrad": kdopt.upgrad_weights,
    "upgrad_exact": functools.partial(kdopt.upgrad_weights, reg_eps=0.0),
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


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_finite(name, k):
    matrices = edge_jacobians(k)
    weights = batched(METHODS[name], grams(matrices), jnp.float32)
    assert np.isfinite(weights).all()
    updates = np.einsum("ck,ckn->cn", weights, matrices)
    assert np.isfinite(updates.astype(np.float32)).all()
