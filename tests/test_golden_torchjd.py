"""Weights of SimplexLab/TorchJD, from its host solvers in float64, in a frozen table.

Made with torchjd 0.18.0, torch 2.13.0, cvxpy 1.9.3 and quadprog 0.1.14; the Jacobians
are in the table. ``tests/peers/test_torchjd.py`` compares with the live package.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import GOLDEN, GOLDEN_GRAM

ROWS = json.loads(Path(__file__).with_name("golden_torchjd.json").read_text())["rows"]

# with the peer's ridge, under which losses may rise
upgrad_weights = functools.partial(kdopt.upgrad_weights, reg_eps=1e-4)
dual_proj_weights = functools.partial(kdopt.dual_proj_weights, reg_eps=1e-4)

METHODS = {
    "upgrad": upgrad_weights,
    "dual_proj": dual_proj_weights,
    "cagrad_0.5": kdopt.cagrad_weights,
    "cagrad_1.5": functools.partial(kdopt.cagrad_weights, c=1.5),
    "fairgrad_0.5": functools.partial(kdopt.fairgrad_weights, alpha=0.5),
    "fairgrad_1": kdopt.fairgrad_weights,
    "fairgrad_2": functools.partial(kdopt.fairgrad_weights, alpha=2.0),
    "nash_mtl": kdopt.nash_mtl_weights,
    "aligned_mtl_min": kdopt.aligned_mtl_weights,
    "aligned_mtl_median": functools.partial(kdopt.aligned_mtl_weights, scale="median"),
    "aligned_mtl_mean": functools.partial(kdopt.aligned_mtl_weights, scale="mean"),
    "imtl_g": kdopt.imtl_g_weights,
}


@pytest.mark.parametrize("name", METHODS)
def test_weights_of_the_peer(name):
    """In float32, to 1e-4 of the length of the weights, for K = 2, 3, 4, 5, 8."""
    fn = jax.jit(METHODS[name])
    for row in ROWS:
        jacobian = np.array(row["jacobian"])
        weights = fn(np.float32(jacobian @ jacobian.T))
        expected = np.array(row["weights"][name])
        error = np.linalg.norm(np.asarray(weights) - expected)
        assert error <= 1e-4 * np.linalg.norm(expected), row["seed"]


def test_update_of_config():
    fn = jax.jit(kdopt.conflict_free_weights)
    for row in ROWS:
        jacobian = np.array(row["jacobian"])
        weights = np.asarray(fn(np.float32(jacobian @ jacobian.T)))
        np.testing.assert_allclose(
            weights @ jacobian, row["conflict_free"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("weights_fn", "expected"),
    [
        # tests/unit/aggregation/test_values.py of TorchJD 862baed, to 1e-4
        (kdopt.aligned_mtl_weights, (0.2133, 0.9673, 0.9673)),
        (kdopt.conflict_free_weights, (0.1588, 2.0706, 2.0706)),
        (dual_proj_weights, (0.5563, 1.1109, 1.1109)),
        (upgrad_weights, (0.2929, 1.9004, 1.9004)),
        (kdopt.cagrad_weights, (0.1835, 1.2041, 1.2041)),
        (kdopt.fairgrad_weights, (0.0766, 0.9985, 0.9985)),
        (kdopt.nash_mtl_weights, (0.0542, 0.7061, 0.7061)),
        (kdopt.imtl_g_weights, (0.0767, 1.0, 1.0)),
        (kdopt.min_norm_weights, (0.0, 1.0, 1.0)),
        (kdopt.pcgrad_weights, (0.5848, 3.8012, 3.8012)),
    ],
)
def test_published_update(weights_fn, expected):
    weights = np.asarray(jax.jit(weights_fn)(np.float32(GOLDEN_GRAM)))
    np.testing.assert_allclose(weights @ GOLDEN, expected, atol=1e-4)
