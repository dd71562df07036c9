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


def test_hold_together():
    old = [jnp.zeros(3, jnp.float16), jnp.zeros(3)]
    new = [jnp.array([1.0, 7e4, 2.0]), jnp.array([1.0, 1.0, jnp.inf])]
    kept, update = hold_together(new, old, jnp.ones(3))
    assert [k.dtype for k in kept] == [jnp.float16, jnp.float32]
    np.testing.assert_array_equal(kept[0], [1, 0, 0])
    np.testing.assert_array_equal(kept[1], [1, 0, 0])
    np.testing.assert_array_equal(update, [1, np.nan, np.nan])
    _, update = hold_together(new[1:], old[1:], jnp.array([jnp.inf, 1.0, 1.0]))
    np.testing.assert_array_equal(update, [np.nan, 1, np.nan])


def test_hold_apart():
    old = [jnp.zeros(3, jnp.float16), jnp.zeros(3)]
    new = [jnp.array([1.0, 7e4, 2.0]), jnp.array([1.0, 1.0, jnp.inf])]
    parts = [jnp.ones(3), jnp.zeros(3)]
    kept, update = hold_apart(new, old, parts, jnp.dtype("float32"))
    np.testing.assert_array_equal(kept[0], [1, 0, 2])
    np.testing.assert_array_equal(kept[1], [1, 1, 0])
    np.testing.assert_array_equal(update, [1, np.nan, np.nan])
    ahead = [jnp.array([7e4, 1.0])]
    kept, update = hold_apart(
        [jnp.ones(2)], [jnp.zeros(2)], ahead, jnp.dtype("float16")
    )
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
    good = (jnp.ones(3, dtype), jnp.ones(3, dtype))
    for _ in range(3):
        _, state = step(good, state, params)
    typical, moved = step(good, state, params)
    later, _ = step(good, moved, params)
    for outlier in FINITE[dtype]:
        bad = (good[0].at[0].set(outlier), good[1])
        update, held = step(bad, state, params)
        after, _ = step(good, held, params)
        assert jnp.all(jnp.isfinite(after))
        largest = jnp.abs(typical[0])
        if jnp.isfinite(update[0]):
            assert update[0] != 0
            largest = jnp.maximum(largest, jnp.abs(update[0]))
        else:  # a stream that was not held is one step further
            room = 0.1 * jnp.abs(typical[0]) + jnp.abs(later[0] - typical[0])
            assert jnp.abs(after[0] - typical[0]) <= room
        assert jnp.abs(after[0]) <= 2 * largest


def test_a_buffer_of_fewer_digits_shows_what_it_cannot_hold(standard):
    tx = kdopt.dot(accumulator_dtype=jnp.float16)
    huge = jnp.array([7e4, 1.0])
    update, state = tx.update((huge, huge), tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(jnp.isfinite(update), [False, True])
    np.testing.assert_array_equal(state.traces[0], [0, 1])


@pytest.mark.parametrize("name", ["dot_adam", "dot_nadam", "dot", "streams"])
def test_apply_if_finite_behind_sees_the_fault(name, standard):
    tx = optax.chain(CORES[name](), optax.apply_if_finite(optax.scale(-0.1), 5))
    params = jnp.zeros(2)
    good = (jnp.ones(2), jnp.ones(2))
    _, state = tx.update(good, tx.init(params), params)
    for _ in range(3):  # streams that are averages take some steps to overflow
        bad = (jnp.array([3e38, 1.0]), jnp.array([3e38, 1.0]))
        update, state = tx.update(bad, state, params)
    np.testing.assert_array_equal(update, 0)
    assert state[-1].total_notfinite >= 1


def test_m_config_holds_an_element_whose_square_overflows(standard):
    tx = kdopt.momentum_conflict_free()
    params = jnp.zeros(2)
    step, state = jax.jit(tx.update), tx.init(params)
    for _ in range(4):
        _, state = step(jnp.array([1.0, 0.5]), state, params)
    update, held = step(jnp.array([2e19, 0.5]), state, params)
    assert not jnp.isfinite(update[0]) and held.notfinite_count == 0
    assert jnp.all(jnp.isfinite(held.second_moment))
    for _ in range(3):
        update, held = step(jnp.array([1.0, 0.5]), held, params)
        assert jnp.all(jnp.isfinite(held.second_moment))
