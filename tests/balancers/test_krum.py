"""Krum and Multi-Krum against the definition on vectors."""

import functools

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, first_step, grams, jacobians


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
    grads = np.array([[1.0, 0.0], [1.1, 0.1], [0.9, -0.1], [-1e3, 1e3]])
    weights = batched(
        kdopt.krum_weights, grams(grads[None]), num_byzantine=1, num_selected=3
    )
    assert weights[0, 3] == 0


def test_arguments():
    with pytest.raises(ValueError, match="at least num_byzantine"):
        kdopt.krum(num_losses=3, num_byzantine=1)
    with pytest.raises(ValueError, match="num_selected must lie in"):
        kdopt.krum(num_losses=3, num_selected=4)


@functools.cache
def krum_step(num_byzantine):
    tx = kdopt.krum(num_losses=6, num_byzantine=num_byzantine)
    return jax.jit(lambda grads: tx.update(grads, tx.init(grads[0])))


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("far", [None, 1e3])
def test_gradients_that_are_nearly_equal(spread, far):
    """The choice of single precision is that of the definition in double."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=40) + spread * rng.normal(size=(6, 40))
        # distances that differ clearly, the fourth in the middle
        matrix[3] = matrix.mean(axis=0)
        if far:
            matrix[[0, 5]] += far * rng.normal(size=40)
        matrix = np.float32(matrix)
        update, state = krum_step(2 if far else 0)(tuple(matrix))
        exact = matrix.astype(float)
        distances = np.sum((exact[:, None] - exact[None]) ** 2, axis=-1)
        nearest = np.sort(distances, axis=1)[:, 1 : 3 if far else 5]
        best = np.argmin(nearest.sum(axis=1))
        np.testing.assert_array_equal(state.loss_weights, np.arange(6) == best)
        np.testing.assert_array_equal(update, matrix[best])
        np.testing.assert_allclose(state.gram, exact @ exact.T, rtol=1e-4)


def test_half_precision_and_sharding_of_the_differences():
    """Differences are taken in single precision, and summed over an axis."""
    matrix = np.array([[1.0, 2.0], [1.002, 2.0], [1.006, 2.0], [1.02, 2.0]])
    tx = kdopt.krum(num_losses=4, num_byzantine=1)
    _, state = first_step(tx, tuple(matrix.astype(np.float16)))
    np.testing.assert_array_equal(state.loss_weights, [1, 0, 0, 0])

    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = kdopt.krum(num_losses=4, num_byzantine=1, axis_name="data")

    def step(*rows):
        return split.update(rows, split.init(rows[0]))

    spec = jax.sharding.PartitionSpec("data")
    _, state = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(spec,) * 4,
            out_specs=(spec, jax.sharding.PartitionSpec()),
        )
    )(*matrix)
    np.testing.assert_array_equal(state.loss_weights, [1, 0, 0, 0])
