"""The control of DOT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_gain_matched_sgd_ends_where_dot_ends(standard):
    """The control: the same steady state, weights 4/7 and 4, one memory."""
    grads = (jnp.ones(1), 10 * jnp.ones(1))

    def end(tx):
        def step(state, _):
            updates, state = tx.update(grads, state)
            return state, updates

        return jax.lax.scan(step, tx.init(jnp.zeros(1)), length=400)

    dot = end(kdopt.dot())[1]
    state, control = end(kdopt.gain_matched_sgd())
    np.testing.assert_allclose(control[-1], dot[-1], rtol=1e-3)
    assert not np.allclose(control[10], dot[10], rtol=0.05)
    np.testing.assert_allclose(kdopt.loss_weights(state), [4 / 7, 4], rtol=1e-5)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        kdopt.gain_matched_sgd(0.95, 0.075)


def test_what_is_not_finite_does_not_stay_in_the_buffer():
    tx, good = kdopt.gain_matched_sgd(), (jnp.ones(1), jnp.ones(1))
    _, state = tx.update(good, tx.init(jnp.zeros(1)))
    expected, _ = tx.update(good, state)
    updates, state = tx.update((jnp.full(1, jnp.nan), good[1]), state)
    assert jnp.isnan(updates[0])
    updates, _ = tx.update(good, state)
    np.testing.assert_allclose(updates, expected)
