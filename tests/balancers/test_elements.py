"""Elements whose buffers would not be finite: all buffers hold, and the update says so.

The property is one of all methods that keep buffers shaped like the parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt.balancers._elements import hold_apart, hold_together
from tests.balancers._inputs import first_step


def test_hold_together():
    old = [np.zeros(3, np.float16), np.zeros(3)]
    new = [np.array([1.0, 7e4, 2.0]), np.array([1.0, 1.0, np.inf])]
    hold = jax.jit(hold_together)
    kept, update = hold(new, old, np.ones(3))
    assert [k.dtype for k in kept] == [jnp.float16, jnp.float32]
    np.testing.assert_array_equal(kept[0], [1, 0, 0])
    np.testing.assert_array_equal(kept[1], [1, 0, 0])
    np.testing.assert_array_equal(update, [1, np.nan, np.nan])
    _, update = hold(new[1:], old[1:], np.array([np.inf, 1.0, 1.0]))
    np.testing.assert_array_equal(update, [np.nan, 1, np.nan])


def test_hold_apart():
    old = [np.zeros(3, np.float16), np.zeros(3)]
    new = [np.array([1.0, 7e4, 2.0]), np.array([1.0, 1.0, np.inf])]
    parts = [np.ones(3), np.zeros(3)]
    hold = jax.jit(hold_apart, static_argnums=3)
    kept, update = hold(new, old, parts, jnp.dtype("float32"))
    np.testing.assert_array_equal(kept[0], [1, 0, 2])
    np.testing.assert_array_equal(kept[1], [1, 1, 0])
    np.testing.assert_array_equal(update, [1, np.nan, np.nan])
    ahead = [np.array([7e4, 1.0])]
    kept, update = hold([np.ones(2)], [np.zeros(2)], ahead, jnp.dtype("float16"))
    np.testing.assert_array_equal(kept[0], [0, 1])
    np.testing.assert_array_equal(update, [np.nan, 1])


CORES = {
    "dot_adam": kdopt.scale_by_dot_adam,
    "dot_nadam": lambda: kdopt.scale_by_dot_adam(nesterov=True),
    "dot_lion": kdopt.scale_by_dot_lion,
    "dot": kdopt.dot,
    "dot_nesterov": lambda: kdopt.dot(nesterov=True),
    "streams": lambda: kdopt.streams((0.5, 0.9), normalize=True),
    "gain_matched_sgd": kdopt.gain_matched_sgd,
    "dot_lars": lambda: kdopt.dot_lars(0.1),
}

FINITE = {
    "float32": [1e18, 1e20, 3e38],
    "float16": [9e3, 3e4, 6e4],
}
"""Gradients that are finite themselves; some of their squares and sums are not."""


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("dtype", FINITE)
def test_an_outlier_leaves_no_trace_unless_it_shows(name, dtype, standard):
    """Either the update shows a fault and the buffers hold, or it is a step.

    The one thing that must not be: no step now, and one of any size later.
    """
    tx = CORES[name]()
    params = jnp.ones(3, dtype)
    step, state = jax.jit(tx.update), tx.init(params)
    good = (np.ones(3, dtype), np.ones(3, dtype))
    for _ in range(3):
        _, state = step(good, state, params)
    typical, moved = jax.device_get(step(good, state, params))
    later = np.asarray(step(good, moved, params)[0])
    for outlier in FINITE[dtype]:
        bad = (np.array([outlier, 1, 1], dtype), good[1])
        update, held = jax.device_get(step(bad, state, params))
        after = np.asarray(step(good, held, params)[0])
        assert np.all(np.isfinite(after))
        largest = np.abs(typical[0])
        if np.isfinite(update[0]):
            assert update[0] != 0
            largest = np.maximum(largest, np.abs(update[0]))
        else:  # a stream that was not held is one step further
            room = 0.1 * np.abs(typical[0]) + np.abs(later[0] - typical[0])
            assert np.abs(after[0] - typical[0]) <= room
        assert np.abs(after[0]) / 2 <= largest


def test_a_buffer_of_fewer_digits_shows_what_it_cannot_hold(standard):
    tx = kdopt.dot(accumulator_dtype=jnp.float16)
    huge = np.array([7e4, 1.0])
    update, state = first_step(tx, (huge, huge))
    np.testing.assert_array_equal(np.isfinite(update), [False, True])
    np.testing.assert_array_equal(state.traces[0], [0, 1])


@pytest.mark.parametrize("name", ["dot_adam", "dot_nadam", "dot", "streams"])
def test_apply_if_finite_behind_sees_the_fault(name, standard):
    tx = optax.chain(CORES[name](), optax.apply_if_finite(optax.scale(-0.1), 5))
    params = jnp.zeros(2)
    step, good = jax.jit(tx.update), (np.ones(2), np.ones(2))
    _, state = step(good, tx.init(params), params)
    for _ in range(3):  # streams that are averages take some steps to overflow
        bad = (np.array([3e38, 1.0]), np.array([3e38, 1.0]))
        update, state = step(bad, state, params)
    np.testing.assert_array_equal(update, 0)
    assert state[-1].total_notfinite >= 1


def test_m_config_holds_an_element_whose_square_overflows(standard):
    tx = kdopt.momentum_conflict_free()
    params = jnp.zeros(2)
    step, state = jax.jit(tx.update), tx.init(params)
    for _ in range(4):
        _, state = step(np.array([1.0, 0.5]), state, params)
    update, held = jax.device_get(step(np.array([2e19, 0.5]), state, params))
    assert not np.isfinite(update[0]) and held.notfinite_count == 0
    assert np.all(np.isfinite(held.second_moment))
    for _ in range(3):
        update, held = step(np.array([1.0, 0.5]), held, params)
        assert np.all(np.isfinite(held.second_moment))
