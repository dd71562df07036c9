"""DOT for Lion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_deltas_that_leave_the_interval_are_refused():
    for factory in (kdopt.dot_adam, kdopt.dot_adamw, kdopt.dot_lion, kdopt.dot_lars):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            factory(0.1, delta=0.2)


def test_lion_by_hand():
    """The buffers decay by b2 - delta and b2 + delta; the sign is of their mixture."""
    tx = kdopt.scale_by_dot_lion(0.5, 0.8, delta=0.1)
    step, state, m = jax.jit(tx.update), tx.init(jnp.zeros(1)), np.zeros(2)
    betas = np.array([0.7, 0.9])
    for row in np.array([[1.0, -0.5], [-1.0, 0.3], [0.2, -0.9]]):
        update, state = step(tuple(np.full(1, g) for g in row), state)
        np.testing.assert_array_equal(update, np.sign(np.sum(0.5 * row + 0.5 * m)))
        m = betas * m + (1 - betas) * row
        np.testing.assert_allclose(np.ravel(state.mu), m, rtol=1e-5)
