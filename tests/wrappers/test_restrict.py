"""restrict: balance the mask, sum the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}


def _grads(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        {
            "head": jax.random.normal(keys[i], (2,), dtype),
            "trunk": jax.random.normal(keys[i + 2], (2, 2), dtype),
        }
        for i in range(2)
    )


def test_restrict_balances_the_mask_and_sums_the_rest():
    grads = _grads(0)
    tx = kdopt.restrict(kdopt.min_norm(), lambda p: {k: k == "trunk" for k in p})
    update, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    trunks = tuple(g["trunk"] for g in grads)
    weights = kdopt.min_norm_weights(kdopt.gram(trunks))
    np.testing.assert_allclose(kdopt.loss_weights(state), weights, rtol=1e-5)
    expected = kdopt.combine(trunks, weights)
    np.testing.assert_allclose(update["trunk"], expected, rtol=1e-5)
    summed = grads[0]["head"] + grads[1]["head"]
    np.testing.assert_allclose(update["head"], summed, rtol=1e-6)


def test_a_mask_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="structure of params, be a prefix of it"):
        kdopt.restrict(kdopt.min_norm(), {"body": True}).init(PARAMS)
