"""Gradients of very different length, in single precision, against double.

Each test takes gradients that single precision holds exactly, lets a method take its
first step in both, and compares the weights in units of the update and the angles of
the update with all gradients.
"""

import jax
import numpy as np
import pytest

from tests import _samplers
from tests._methods import BALANCERS, METHOD, first_step
from tests._turns import in_turn

PROMISES = {"non_conflicting", "min_norm_kkt", "equal_decrease", "bisector"}
NAMES = [m.name for m in BALANCERS if PROMISES & set(m.claims)]


def rows_of_two(cosine, ratio, scale=1.0):
    """Two gradients with a cosine; the second is ``ratio`` times as long."""
    first, other = np.linalg.qr(_samplers.generic(1, 2).T)[0].T
    second = cosine * first + np.sqrt(1 - cosine**2) * other
    return np.float32(scale * np.stack([first, ratio * second])).astype(float)


def both(name, rows, values):
    """Weights in single precision and in double."""
    k = len(rows)
    single = first_step(name, k)(np.float32(rows), np.float32(values))[1]
    with jax.enable_x64(True):
        double = first_step(name, k)(rows, values)[1]
    return single.astype(float), double


def cosines(rows, weights):
    update = weights @ rows
    size = np.linalg.norm(rows, axis=1) * np.linalg.norm(update)
    return rows @ update / size


def assert_alike(name, rows, values, rtol):
    single, double = both(name, rows, values)
    norms = np.linalg.norm(rows, axis=1)
    size = np.max(np.abs(double * norms))
    np.testing.assert_allclose(single * norms / size, double * norms / size, atol=rtol)
    np.testing.assert_allclose(cosines(rows, single), cosines(rows, double), atol=rtol)
    if "non_conflicting" in METHOD[name].claims:
        assert np.min(cosines(rows, single)) >= -rtol


@pytest.mark.parametrize("name", in_turn([n for n in NAMES if 2 in METHOD[n].ks], 0))
@pytest.mark.parametrize("cosine", [-1 + 1e-3, -0.9, -0.1, 0.1, 0.5, 0.99])
def test_two_of_unlike_length(name, cosine):
    for ratio in 10.0 ** np.arange(-9, 10, 3):
        rows = rows_of_two(cosine, ratio)
        assert_alike(name, rows, np.array([1.0, 2.0]), 1e-6 / (1 - abs(cosine)))


@pytest.mark.parametrize("name", [n for n in NAMES if 3 in METHOD[n].ks])
def test_three_of_unlike_length(name):
    lengths = 10.0 ** np.array([[9, 0, -9], [-9, 9, 9], [0, 0, 6], [-6, 0, -6]])
    for kind in ("generic", "conflicting"):
        for seed, length in enumerate(lengths):
            rows = _samplers.KINDS[kind](seed, 3)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.float32(rows * length[:, None]).astype(float)
            assert_alike(name, rows, np.array([1.0, 2.0, 0.5]), 1e-4)
