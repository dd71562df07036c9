"""Learned log-scales: where they end, and what they leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

PARAMS = jnp.zeros(2)


def _run(tx, rows):
    def step(state, values):
        updates, state = tx.update(PARAMS, state, PARAMS, values=values)
        return state, updates

    return jax.jit(lambda rows: jax.lax.scan(step, tx.init(PARAMS), rows)[0])(rows)


@pytest.mark.parametrize(("make", "factor"), [("uncertainty", 0.5), ("imtl_l", 1.0)])
def test_learned_scales_tend_to_the_inverse_of_losses_at_rest(make, factor, standard):
    values = np.float32([4, 0.5])
    state = _run(getattr(kdopt, make)(0.02), np.tile(values, (600, 1)))
    weights = kdopt.loss_weights(state)
    np.testing.assert_allclose(weights, factor / values, rtol=1e-3)


@pytest.mark.parametrize(
    "tx",
    [kdopt.uncertainty(), kdopt.imtl_l(), kdopt.dwa(window=1), kdopt.softadapt()],
    ids=["uncertainty", "imtl_l", "dwa", "softadapt"],
)
def test_a_step_that_is_not_finite_is_left_out(tx, standard):
    rows = np.float32([[1, 2], [2, 1], [np.nan, 1], [1, 1.5]])
    with_fault = _run(tx, rows)
    without = _run(tx, rows[[0, 1, 3]])
    np.testing.assert_allclose(
        kdopt.loss_weights(with_fault), kdopt.loss_weights(without), rtol=1e-6
    )
    assert with_fault.notfinite_count == 1


SCALES = [kdopt.uncertainty, kdopt.imtl_l]


def _weights_at_rest(make, rows):
    state = _run(make(0.02), rows)
    return kdopt.loss_weights(state), state


@pytest.mark.parametrize("make", SCALES)
@pytest.mark.parametrize("outlier", [1e6, 1e12, 1e18, 1e20, 1e38])
def test_one_large_loss_freezes_no_weight(make, outlier, standard):
    """It counts as little, or not at all; the weights still find their place."""
    values = np.float32([4, 0.5])
    rows = np.tile(values, (1500, 1))
    rows[10, 0] = outlier
    weights, state = _weights_at_rest(make, rows)
    factor = 0.5 if make is kdopt.uncertainty else 1.0
    np.testing.assert_allclose(weights, factor / values, rtol=0.02)
    assert state.notfinite_count == (outlier > 1e18)


@pytest.mark.parametrize("make", SCALES)
def test_a_loss_that_stays_negative_leaves_the_weights_alone(make, standard):
    """It has no scale to be learned: each step is left out and counted."""
    rows = np.tile(np.float32([2, -1]), (300, 1))
    weights, state = _weights_at_rest(make, rows)
    start = make(0.02).init(PARAMS)
    np.testing.assert_array_equal(weights, kdopt.loss_weights(start))
    assert state.notfinite_count == 300


@pytest.mark.parametrize("make", SCALES)
def test_an_absent_loss_keeps_its_scale(make, standard):
    rows = np.tile(np.float32([2, 0]), (3000, 1))
    weights, state = _weights_at_rest(make, rows)
    start = kdopt.loss_weights(make(0.02).init(PARAMS))
    np.testing.assert_array_equal(weights[1], start[1])
    np.testing.assert_allclose(weights[0], start[0] / 2, rtol=1e-3)
    assert state.notfinite_count == 0


@pytest.mark.parametrize("make", SCALES)
def test_scales_stay_in_their_range(make, standard):
    """A learning rate that would lead out of it leads nowhere."""
    state = _run(make(1e3), np.full((3, 2), 4, np.float32))
    assert state.notfinite_count == 3
    np.testing.assert_array_equal(state.log_scales, 0)
