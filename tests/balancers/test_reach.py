"""Momentum of leaves that one loss reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


def test_a_leaf_that_one_loss_reaches_moves_with_solo_momentum():
    reach = ({"w": True, "b": True}, {"w": True, "b": False})
    for solo, expected in ((None, 0.5), (0.1, 0.1)):
        tx = kdopt.streams((0.3, 0.7), reach=reach, solo_momentum=solo)
        ones = jax.tree.map(np.ones_like, PARAMS)
        step = jax.jit(tx.update)
        _, state = step((ones, ones), tx.init(PARAMS), PARAMS)
        _, state = step((ones, ones), state, PARAMS)
        np.testing.assert_allclose(state.traces[0]["b"], 1 + expected, rtol=1e-6)
        np.testing.assert_allclose(state.traces[0]["w"], 1.3, rtol=1e-6)
    with pytest.raises(ValueError, match="reach must hold one tree of bools per loss"):
        bad = kdopt.streams((0.3, 0.7), reach=reach[:1])
        bad.update((PARAMS, PARAMS), bad.init(PARAMS), PARAMS)
