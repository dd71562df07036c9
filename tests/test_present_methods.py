"""Losses that are absent from a batch, in every method.

What the absent loss holds, such as NaN, must not matter, and where a method promises
so, the update is that of the method without the loss.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests import _samplers
from tests._methods import BALANCERS, METHOD, METHODS, transform
from tests._turns import in_turn

pytestmark = pytest.mark.usefixtures("standard")

STEPS = 3


@functools.cache
def jitted(name, k):
    """``(rows, state, params, values, mask) -> (update, state)``, compiled once."""
    method, tx = METHOD[name], transform(name, k)

    @jax.jit
    def step(rows, state, params, values, present):
        feed, extras = method.feed(tuple(rows)), method.extras(k)
        return tx.update(feed, state, params, values=values, present=present, **extras)

    return step


def run(name, rows, values, present):
    """Returns the updates of some steps and the last state."""
    step, params = jitted(name, len(rows)), jnp.zeros(rows.shape[1])
    state, updates = transform(name, len(rows)).init(params), []
    for _ in range(STEPS):
        update, state = step(rows, state, params, values, present)
        updates.append(np.asarray(update))
    return np.stack(updates), state


def most(name):
    return METHOD[name].ks[-1]


def weights_of(state, values, present):
    try:
        return kdopt.loss_weights(state, values, present=present)
    except ValueError:  # the method has no weights
        return None


@pytest.mark.parametrize(
    "name", in_turn([m.name for m in METHODS if m.plumbing and most(m.name) > 1], 0)
)
def test_what_an_absent_loss_holds_does_not_matter(name):
    k = most(name)
    rows = np.float32(0.3 * _samplers.conflicting(2, k))
    values = np.float32(_samplers.values(2, k))
    absent = k - 1
    mask = np.arange(k) != absent
    found = []
    for garbage in (0.0, 1e3, np.nan):
        rows[absent], values[absent] = garbage, garbage
        updates, state = run(name, rows, values, mask)
        assert np.all(np.isfinite(updates)), garbage
        assert getattr(state, "notfinite_count", 0) == 0
        weights = weights_of(state, values, mask)
        if weights is not None:
            assert np.all(np.isfinite(weights)) and weights[absent] == 0
        found.append((updates, jax.tree.leaves(state), weights))
    chex.assert_trees_all_equal(*found)


def direction(update):
    return update / np.linalg.norm(update, axis=-1, keepdims=True)


EXCEPT = {
    "linear": "each loss has its own number, whatever the others do",
    "streams": "each loss has its own momentum, whatever the others do",
    "random_weights": "weights are drawn for as many losses as there are",
}
ALONE = {"reference_aligned_cosine": "takes no step where no loss agrees"}
"""Methods whose update is zero on these gradients."""
ROWS = {"scale_by_multi_adam": _samplers.generic}
"""Of conflicting gradients it adds the signs, which cancel."""

FIRST, LAST = "the first loss leads", "the last gradient is the reference"
LEADS = {
    **dict.fromkeys(("constrained", "pcd", "dynamic_barrier", "grad_cosine"), FIRST),
    **dict.fromkeys(("bloop", "scale_by_mt_adam"), FIRST),
    **{
        f"reference_aligned_{rule}": LAST
        for rule in ("cosine", "nearest", "hypergradient")
    },
}
"""Methods in which one loss has a role that no other can take."""


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "name",
    in_turn(
        [
            m.name
            for m in BALANCERS
            if max(m.ks) > 2 and m.plumbing and m.name not in {*EXCEPT, *ALONE}
        ],
        1,
    ),
)
def test_others_go_on_as_without_it(name, position):
    fewer = max(2, METHOD[name].ks[0])
    leader = {FIRST: 0, LAST: fewer}.get(LEADS.get(name, ""))
    if position == leader:
        pytest.skip(LEADS[name])
    rows = np.float32(0.3 * ROWS.get(name, _samplers.conflicting)(1, fewer))
    values = np.float32(_samplers.values(1, fewer))
    expected, _ = run(name, rows, values, np.ones(fewer, bool))
    assert np.linalg.norm(expected, axis=-1).min() > 1e-3  # more than rounding
    more = np.insert(rows, position, np.nan, axis=0)
    mask = np.arange(fewer + 1) != position
    found, _ = run(name, more, np.insert(values, position, np.nan), mask)
    np.testing.assert_allclose(direction(found), direction(expected), atol=1e-4)


def test_exceptions_are_rows():
    assert {*EXCEPT, *ALONE, *LEADS} <= set(METHOD)


SCALARIZERS = [m.name for m in METHODS if m.scalarizer and m.needs_values]


@pytest.mark.parametrize("name", [n for n in SCALARIZERS if most(n) > 2])
def test_all_present_is_the_default(name):
    k = most(name)
    rows = np.float32(_samplers.generic(0, k))
    values = np.float32(_samplers.values(0, k))
    without, with_mask = (run(name, rows, values, m) for m in (None, np.ones(k, bool)))
    chex.assert_trees_all_close(without, with_mask, rtol=1e-6)


@pytest.mark.parametrize("name", ["stch", "pbi", "cosmos"])
def test_scalarizers_without_memory_leave_the_absent_loss_out(name):
    weights_fn = getattr(kdopt.scalarizers, f"{name}_weights")
    preferences, values = np.float32([0.2, 0.5, 0.3]), np.float32([1, 2, 1.5])
    two_of_three = functools.partial(weights_fn, present=[True, False, True])
    got = jax.jit(two_of_three)(values, preferences=preferences)
    expected = jax.jit(weights_fn)(values[::2], preferences=preferences[::2])
    np.testing.assert_allclose(np.asarray(got)[::2], expected, rtol=1e-5)
    assert got[1] == 0


@pytest.mark.parametrize("name", ["dwa", "softadapt"])
def test_windows_average_over_the_steps_that_have_the_loss(name):
    tx = getattr(kdopt, name)(window=2)
    params, weights, step = jnp.zeros(1), [], jax.jit(tx.update)
    sparse = [((4.0, 3.0), (1, 1)), ((2.0, 9e9), (1, 0))] * 2
    dense = [((4.0, 3.0), (1, 1)), ((2.0, 3.0), (1, 1))] * 2
    for steps in (sparse, dense):
        state = tx.init(params)
        for values, present in steps:
            _, state = step(params, state, values=values, present=present)
        weights.append(kdopt.loss_weights(state))
    np.testing.assert_allclose(*weights, rtol=1e-6)
    # The second loss is seen only in the last window: it counts as unchanged.
    state = tx.init(params)
    for values, here in [(4.0, 0), (2.0, 0), (4.0, 1), (2.0, 1)]:
        _, state = step(params, state, values=(values, 7.0), present=(1, here))
    np.testing.assert_allclose(kdopt.loss_weights(state), weights[0], rtol=1e-6)


def test_a_turn_waits_for_its_loss():
    tx, params = kdopt.momentum_conflict_free(), jnp.zeros(2)
    state = tx.init(params)
    grad = jnp.array([jnp.nan, 1.0])
    update, held = jax.jit(tx.update)(grad, state, params, present=(False, True))
    chex.assert_trees_all_equal(held, state)
    assert not np.any(update)


@pytest.mark.parametrize("name", [*SCALARIZERS, "hypergradient", "weight_search"])
def test_scalarizers_refuse_the_state_of_other_numbers(name):
    k = METHOD[name].few
    state = transform(name, k).init(jnp.zeros(1))
    other = METHOD[name].make(k + 1)
    with pytest.raises(ValueError, match=f"The state is for {k} losses"):
        extras = METHOD[name].extras(k + 1)
        other.update(jnp.zeros(1), state, values=jnp.ones(k + 1), **extras)
