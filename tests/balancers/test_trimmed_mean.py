"""Trimmed mean: against a sort, robustness, dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import first_step


@pytest.mark.parametrize(("k", "b"), [(3, 1), (5, 2), (6, 1), (2, 0)])
def test_against_a_sort(k, b):
    rows = np.random.default_rng(k).normal(size=(k, 7)).astype(np.float32)
    rows[0] = 1e9 if b else rows[0]
    tx = kdopt.trimmed_mean(num_losses=k, num_trimmed=b)
    update, _ = first_step(tx, tuple(rows))
    expected = np.sort(rows, axis=0)[b : k - b].mean(axis=0)
    np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-7)


def test_dtype_and_arguments():
    tx = kdopt.trimmed_mean()
    grads = (np.ones(2, jnp.bfloat16),) * 3
    update, _ = jax.jit(tx.update)(grads, tx.init(jnp.ones(2)))
    assert update.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="must leave something"):
        kdopt.trimmed_mean(num_losses=2)
