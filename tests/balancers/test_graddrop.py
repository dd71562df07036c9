"""GradDrop: expectation, agreement, leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import first_step


def test_one_sign_survives_with_the_right_probability():
    """P(positive) = (1 + sum / sum of magnitudes) / 2 = 6 / 10 for (-4, 6)."""
    n = 20_000
    tx = kdopt.graddrop(key=jax.random.key(0))
    update, _ = first_step(tx, (np.full(n, -4.0), np.full(n, 6.0)))
    assert set(np.unique(update)) == {-4.0, 6.0}
    np.testing.assert_allclose(np.mean(update > 0), 0.6, atol=0.015)


def test_agreeing_gradients_pass_and_the_key_moves_on():
    tx = kdopt.graddrop(num_losses=3, key=jax.random.key(0))
    grads = tuple(np.array([x, -x, 0.0]) for x in (1.0, 2.0, 4.0))
    state = tx.init(jnp.zeros(3))
    update, new = jax.jit(tx.update)(grads, state)
    np.testing.assert_array_equal(update, [7.0, -7.0, 0.0])
    assert not np.array_equal(new.key_data, state.key_data)


def test_full_leak_is_the_sum():
    tx = kdopt.graddrop(key=jax.random.key(0), leak=(1.0, 1.0))
    grads = {"a": np.array([-4.0])}, {"a": np.array([6.0])}
    update, _ = first_step(tx, grads)
    np.testing.assert_array_equal(update["a"], [2.0])


def test_arguments():
    with pytest.raises(TypeError, match="argument: 'key'"):
        kdopt.graddrop()
    with pytest.raises(ValueError, match="leak must be"):
        kdopt.graddrop(key=jax.random.key(0), leak=(0.5,))
