"""The two passes over the gradients: against numpy, and at the limits of dtypes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests import _samplers


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gram_equals_the_matrix_product(x64, k):
    rows = _samplers.generic(0, k)
    got = kdopt.gram(_samplers.trees(rows))
    np.testing.assert_allclose(got, rows @ rows.T, rtol=1e-12)
    assert got.dtype == jnp.float64
    chex.assert_trees_all_equal(got, got.T)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gram_is_summed_in_float32(dtype):
    """A million ones: a half-precision sum stops at 2048 or 256."""
    ones = jnp.ones(1_000_000, dtype)
    got = kdopt.gram((ones, 2 * ones))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[1e6, 2e6], [2e6, 4e6]], rtol=1e-5)


def test_gram_of_mixed_dtypes():
    tree = {"half": jnp.full(2, 3, jnp.float16), "full": jnp.full(2, 2.0)}
    np.testing.assert_allclose(kdopt.gram((tree,)), [[26.0]])


def test_gram_does_not_overflow_half_precision():
    """300^2 is above the largest float16."""
    np.testing.assert_allclose(kdopt.gram((jnp.array([300.0], jnp.float16),)), 9e4)


def test_combine_keeps_dtypes_and_sums_in_float32():
    tree = {"half": jnp.ones(2, jnp.bfloat16), "full": jnp.ones(3)}
    weights = jnp.array([1.0, 1 / 512, 1 / 512, 1 / 512, 1 / 512])
    got = kdopt.combine((tree,) * 5, weights)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, tree)
    # one addend at a time, each 1/512 would be lost to rounding in bfloat16
    np.testing.assert_allclose(got["half"].astype(float), 1 + 1 / 128)
    np.testing.assert_allclose(got["full"], 1 + 1 / 128, rtol=1e-6)


def test_combine_equals_the_sum(x64):
    rows, weights = _samplers.generic(1, 3), jnp.array([0.2, -1.0, 3.0])
    got = kdopt.combine(_samplers.trees(rows), weights)
    expected = _samplers.tree(np.asarray(weights) @ rows)
    chex.assert_trees_all_close(got, expected, rtol=1e-12)


def test_trees_of_other_structure_are_refused():
    with pytest.raises(ValueError, match=r"[Ll]ength|shorter|longer|argument"):
        kdopt.gram(({"a": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.ones(1)}))


def test_both_are_differentiable():
    rows = jnp.asarray(_samplers.generic(0, 2), jnp.float32)
    slope = jax.grad(lambda r: kdopt.gram(tuple(r))[0, 1])(rows)
    np.testing.assert_allclose(slope, rows[::-1], rtol=1e-6)
