"""Learned log-scales: where they end, and what they leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

PARAMS = jnp.zeros(2)


def _run(tx, rows):
    state = tx.init(PARAMS)

    def step(state, values):
        updates, state = tx.update(PARAMS, state, PARAMS, values=values)
        return state, updates

    return jax.lax.scan(step, state, rows)[0]


@pytest.mark.parametrize(("make", "factor"), [("uncertainty", 0.5), ("imtl_l", 1.0)])
def test_learned_scales_tend_to_the_inverse_of_losses_at_rest(make, factor, standard):
    values = jnp.array([4.0, 0.5])
    state = _run(getattr(kdopt, make)(0.02), jnp.tile(values, (600, 1)))
    weights = kdopt.loss_weights(state)
    np.testing.assert_allclose(weights, factor / values, rtol=1e-3)


@pytest.mark.parametrize(
    "tx",
    [kdopt.uncertainty(), kdopt.imtl_l(), kdopt.dwa(window=1), kdopt.softadapt()],
    ids=["uncertainty", "imtl_l", "dwa", "softadapt"],
)
def test_a_step_that_is_not_finite_is_left_out(tx, standard):
    rows = jnp.array([[1.0, 2.0], [2.0, 1.0], [jnp.nan, 1.0], [1.0, 1.5]])
    with_fault = _run(tx, rows)
    without = _run(tx, rows[jnp.array([0, 1, 3])])
    np.testing.assert_allclose(
        kdopt.loss_weights(with_fault), kdopt.loss_weights(without), rtol=1e-6
    )
    assert with_fault.notfinite_count == 1
