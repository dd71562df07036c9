"""restrict: balance the mask, sum the rest."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kdopt
from tests.wrappers._trees import PARAMS, draw


def test_restrict_balances_the_mask_and_sums_the_rest():
    grads = draw(0)
    tx = kdopt.restrict(kdopt.min_norm(), lambda p: {k: k == "trunk" for k in p})
    update, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    trunks = tuple(g["trunk"] for g in grads)
    weights = jax.jit(lambda pair: kdopt.min_norm_weights(kdopt.gram(pair)))(trunks)
    np.testing.assert_allclose(kdopt.loss_weights(state), weights, rtol=1e-5)
    expected = jax.jit(kdopt.combine)(trunks, weights)
    np.testing.assert_allclose(update["trunk"], expected, rtol=1e-5)
    summed = grads[0]["head"] + grads[1]["head"]
    np.testing.assert_allclose(update["head"], summed, rtol=1e-6)


def test_a_mask_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="structure of params, be a prefix of it"):
        kdopt.restrict(kdopt.min_norm(), {"body": True}).init(PARAMS)


class Callable(eqx.Module):
    """A model that can be called, as a mask of bools may be in Equinox."""

    w: Any
    b: Any

    def __call__(self, x):
        return self.w * x + self.b


def test_a_mask_that_is_a_callable_module():
    params, mask = Callable(jnp.ones(2), jnp.ones(2)), Callable(True, False)
    grads = params, jax.tree.map(lambda x: -3 * x, params)
    tx = kdopt.restrict(kdopt.min_norm(), mask)
    update, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(update.w, 0, atol=1e-6)
    np.testing.assert_allclose(update.b, -2)


@pytest.mark.parametrize(
    "mask",
    [{"kernel": True, "bias": False}, lambda state: {"kernel": True, "bias": False}],
)
def test_a_dict_masks_the_state_of_an_nnx_module(mask):
    params = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param)
    grads = jax.tree.map(jnp.ones_like, params), jax.tree.map(jnp.ones_like, params)
    tx = kdopt.restrict(kdopt.min_norm(), mask)
    update, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(update["kernel"][...], 1)
    np.testing.assert_allclose(update["bias"][...], 2)


@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": True},
        {"kernel": True, "bias": False, "typo": True},
        {"kernel": {"deeper": True}, "bias": False},
    ],
)
def test_a_dict_that_does_not_fit_a_state_is_refused(mask):
    params = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param)
    with pytest.raises(ValueError, match="must have the structure of params"):
        kdopt.restrict(kdopt.min_norm(), mask).init(params)
