"""The control of DOT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_gain_matched_sgd_ends_where_dot_ends(standard):
    """The control: the same steady state, weights 4/7 and 4, one memory."""
    grads = (np.ones(1), np.full(1, 10.0))

    def end(tx):
        def scan(grads):
            def step(state, _):
                updates, state = tx.update(grads, state)
                return state, updates

            return jax.lax.scan(step, tx.init(grads[0]), length=400)

        state, updates = jax.jit(scan)(grads)
        return state, np.asarray(updates)

    dot = end(kdopt.dot())[1]
    state, control = end(kdopt.gain_matched_sgd())
    np.testing.assert_allclose(control[-1], dot[-1], rtol=1e-3)
    assert not np.allclose(control[10], dot[10], rtol=0.05)
    np.testing.assert_allclose(kdopt.loss_weights(state), [4 / 7, 4], rtol=1e-5)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        kdopt.gain_matched_sgd(0.95, 0.075)


def test_what_is_not_finite_does_not_stay_in_the_buffer():
    tx, good = kdopt.gain_matched_sgd(), (np.ones(1), np.ones(1))
    step = jax.jit(tx.update)
    _, state = step(good, tx.init(jnp.zeros(1)))
    expected, _ = step(good, state)
    updates, state = step((np.full(1, np.nan), good[1]), state)
    assert np.all(np.isnan(updates))
    updates, _ = step(good, state)
    np.testing.assert_allclose(updates, expected)
