"""Fixed weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


@pytest.mark.parametrize("weights", [[], 1.0, [[1.0]]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match=r"weights must (be a list of|hold) K numbers"):
        kdopt.linear(jnp.asarray(weights))


def test_weights_may_be_negative():
    tx = kdopt.linear([2.0, -1.0])
    state = tx.init(jnp.ones(1))
    update, state = jax.jit(tx.update)((np.ones(1), np.full(1, 5.0)), state)
    np.testing.assert_allclose(update, [-3.0])
    np.testing.assert_allclose(kdopt.loss_weights(state), [2.0, -1.0])
