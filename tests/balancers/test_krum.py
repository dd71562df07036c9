"""Krum and Multi-Krum against the definition on vectors."""

import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


@pytest.mark.parametrize(("f", "m"), [(0, 1), (1, 2), (2, 3)])
def test_against_the_definition(f, m, x64):
    matrices = jacobians(6, 4, spread=0.2)
    weights = batched(
        kdopt.krum_weights, grams(matrices), num_byzantine=f, num_selected=m
    )
    for matrix, w in zip(matrices, weights, strict=True):
        distances = np.sum((matrix[:, None] - matrix[None]) ** 2, axis=-1)
        scores = np.sort(distances, axis=1)[:, 1 : 6 - f - 1].sum(axis=1)
        chosen = np.argsort(scores)[:m]
        np.testing.assert_allclose(w, np.isin(np.arange(6), chosen) / m)


def test_an_outlier_is_never_chosen():
    grads = jnp.array([[1.0, 0.0], [1.1, 0.1], [0.9, -0.1], [-1e3, 1e3]])
    weights = kdopt.krum_weights(grads @ grads.T, num_byzantine=1, num_selected=3)
    assert weights[3] == 0


def test_arguments():
    with pytest.raises(ValueError, match="at least num_byzantine"):
        kdopt.krum(num_losses=3, num_byzantine=1)
    with pytest.raises(ValueError, match="num_selected must lie in"):
        kdopt.krum(num_losses=3, num_selected=4)
