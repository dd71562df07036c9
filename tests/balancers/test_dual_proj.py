"""DualProj: the nearest direction that raises no loss."""

import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians, rates


def test_closed_form_of_two(x64):
    matrices = grams(jacobians(2, 5))
    weights = batched(kdopt.dual_proj_weights, matrices, reg_eps=0.0)
    for gram, w in zip(matrices, weights, strict=True):
        (a, c), (_, b) = gram
        if a + c < 0:
            np.testing.assert_allclose(w, [max(0.5, -c * 0.5 / a), 0.5], rtol=1e-9)
        elif b + c < 0:
            np.testing.assert_allclose(w, [0.5, max(0.5, -c * 0.5 / b)], rtol=1e-9)
        else:
            np.testing.assert_allclose(w, 0.5)


def test_nearest_of_all_unconflicting_directions(x64):
    matrices = jacobians(4, 5, count=4, spread=0.3)
    weights = batched(kdopt.dual_proj_weights, grams(matrices), reg_eps=0.0)
    assert rates(matrices, weights).min() > -1e-7
    rng = np.random.default_rng(0)
    for matrix, w in zip(matrices, weights, strict=True):
        mean, update = matrix.mean(axis=0), w @ matrix
        tries = update + 0.3 * rng.normal(size=(20_000, 5))
        allowed = tries[(tries @ matrix.T >= 0).all(axis=1)]
        assert len(allowed) > 10
        nearest = np.linalg.norm(allowed - mean, axis=1).min()
        assert nearest >= np.linalg.norm(update - mean) - 1e-9


def test_preference():
    with pytest.raises(ValueError, match="must not be negative"):
        kdopt.dual_proj(preference=[-1.0, 1.0])
    matrices = grams(np.eye(2)[None])
    weights = batched(kdopt.dual_proj_weights, matrices, preference=[0.3, 2.0])
    np.testing.assert_allclose(weights[0], [0.3, 2.0], rtol=1e-6)
