"""Losses whose logarithm is taken: above their bounds, absent, or neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt import _log_losses
from tests import _samplers
from tests._methods import METHOD, jitted, transform

BOUNDS = np.float32([0.5, 0.0, -1.0])

gaps_above = jax.jit(_log_losses.gaps_above)


def test_gaps():
    found = gaps_above(np.float32([0.5 + 1e-10, 2.0, -1.0]), BOUNDS, 1e-3)
    np.testing.assert_array_equal(found.usable, [False, True, False])
    np.testing.assert_array_equal(found.gaps, [1, 2, 1])
    assert not found.defined
    floored = gaps_above(np.float32([1e-5, 0.0]), 0.0, 1e-3)
    np.testing.assert_allclose(floored.gaps, [1e-3, 1])
    np.testing.assert_array_equal(floored.absent, [False, True])
    assert floored.defined


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -1.0])
def test_what_has_no_logarithm_is_not_defined(bad):
    assert not gaps_above(np.float32([1.0, bad]), 0.0, 1e-8).defined


def test_zero_above_its_bound_is_a_loss_like_any():
    found = gaps_above(np.zeros(2, np.float32), -1.0, 1e-8)
    np.testing.assert_array_equal(found.usable, True)


def test_logs_of_before():
    found = gaps_above(np.float32([0, 2, 0]), 0.0, 1e-8)
    logs = jax.jit(_log_losses.last_logs)(
        found, np.float32([3, 5, 0]), np.array([True, True, False])
    )
    np.testing.assert_allclose(logs, [3, np.log(2), (3 + np.log(2)) / 2], rtol=1e-6)


# Pure functions

ROWS = np.float32(_samplers.conflicting(0, 3))
GRAM = ROWS @ ROWS.T

PURE = {
    "dto_kd": kdopt.dto_kd_weights,
    "dto_kd_convex": lambda g, v: kdopt.dto_kd_weights(g, v, rescale="convex"),
    "dto_kd_theorem": lambda g, v: kdopt.dto_kd_weights(g, v, simplex=False),
    "min_norm": lambda g, v: kdopt.min_norm_weights(g, v, normalize="loss"),
    "min_norm_both": lambda g, v: kdopt.min_norm_weights(
        g, v, normalize="loss_and_norm"
    ),
    "geometric_mean": lambda g, v: kdopt.geometric_mean_weights(v),
    "famo": lambda g, v: kdopt.famo_weights(v, jnp.zeros_like(v)),
}
JITTED = {name: jax.jit(fn) for name, fn in PURE.items()}


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("name", PURE)
def test_an_absent_loss_leaves_the_others_to_themselves(name, position):
    """Even if a gradient is passed for it."""
    values = np.insert(np.float32([2.0, 0.3]), position, 0)
    others = np.delete(np.arange(3), position)
    got = JITTED[name](GRAM, values)
    alone = JITTED[name](GRAM[np.ix_(others, others)], values[others])
    assert got[position] == 0
    np.testing.assert_allclose(np.asarray(got)[others], alone, rtol=1e-5)


@pytest.mark.parametrize("bad", [-1.0, -1e-30])
@pytest.mark.parametrize("name", PURE)
def test_a_loss_below_its_bound_has_no_logarithm(name, bad):
    got = JITTED[name](GRAM, np.float32([1.0, bad, 2.0]))
    assert np.all(np.isnan(got))


@pytest.mark.parametrize("name", PURE)
def test_nothing_but_absent_losses(name):
    got = np.asarray(JITTED[name](GRAM, np.zeros(3, np.float32)))
    assert np.all(np.isfinite(got) & (got > 0))


# Transforms

BALANCERS = ("dto_kd", "dto_kd_convex", "dto_kd_theorem", "db_mtl")
GOOD = np.float32([1.0, 2.0])


def steps(name, *rows):
    """Returns the states after each row of values, from the start."""
    k, params = len(rows[0]), jnp.zeros(_samplers.DIM)
    grads = tuple(np.float32(_samplers.conflicting(0, k)))
    step, state = jitted(name, k), transform(name, k).init(params)
    for values in rows:
        update, state = step(grads, state, params, np.float32(values))
        yield update, state


@pytest.mark.parametrize("name", BALANCERS)
def test_balancers_hold_and_count(name):
    (_, before), (update, after) = steps(name, GOOD, [1.0, -2.0])
    np.testing.assert_array_equal(after.loss_weights, before.loss_weights)
    assert after.notfinite_count == 1 and np.all(np.isfinite(update))
    _, (_, absent) = steps(name, GOOD, [1.0, 0.0])
    assert absent.notfinite_count == 0 and absent.loss_weights[1] == 0


def test_db_mtl_keeps_the_mean_of_an_absent_loss():
    (_, before), (_, after) = steps("db_mtl", GOOD, [1.0, 0.0])
    np.testing.assert_array_equal(after.traces[1], before.traces[1])
    assert np.any(np.asarray(after.traces[0]) != np.asarray(before.traces[0]))


SCALARIZERS = (
    "dto_kd_amortized",
    "dto_kd_amortized_same_batch",
    "dto_kd_amortized_gram",
    "dto_kd_amortized_literal",
    "famo",
    "geometric_mean",
    "uncertainty",
    "imtl_l",
)


def without_count(state):
    return jax.tree.leaves(state._replace(notfinite_count=0))


@pytest.mark.parametrize("name", SCALARIZERS)
def test_scalarizers_hold_and_count(name, standard):
    (_, before), (_, after) = steps(name, GOOD, [3.0, -2.0])
    assert after.notfinite_count == 1 and before.notfinite_count == 0
    for new, old in zip(without_count(after), without_count(before), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("unusable", [0.0, -2.0])
@pytest.mark.parametrize("name", SCALARIZERS)
def test_scalarizers_hand_out_weights_of_the_last_gap(name, unusable, standard):
    """Never NaN, and nothing that the present loss could lose."""
    *_, (_, state) = steps(name, GOOD, GOOD, GOOD)
    got = kdopt.loss_weights(state, jnp.array([1.0, unusable]))
    expected = kdopt.loss_weights(state, jnp.asarray(GOOD))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    fresh = transform(name, 2).init(jnp.zeros(_samplers.DIM))
    got = kdopt.loss_weights(fresh, jnp.array([1.0, unusable]))
    np.testing.assert_allclose(got, got[0], rtol=1e-6)


@pytest.mark.parametrize("name", SCALARIZERS)
def test_an_absent_loss_moves_no_weight_and_is_no_fault(name, standard):
    """Alone with one other there is nothing to balance."""
    if name == "dto_kd_amortized_literal":
        pytest.skip("has no gradient in it: each log-loss moves its own weight")
    *_, (_, after) = steps(name, [1.0, 0.0], [0.5, 0.0], [0.2, 0.0])
    assert after.notfinite_count == 0
    start = transform(name, 2).init(jnp.zeros(_samplers.DIM))
    first, second = (
        np.asarray(kdopt.loss_weights(state, jnp.asarray(GOOD)))
        for state in (start, after)
    )
    if METHOD[name].factory in (kdopt.uncertainty, kdopt.imtl_l):
        first, second = first[1:], second[1:]
    np.testing.assert_allclose(second, first, rtol=1e-3)


def test_the_next_fall_spans_the_steps_without_a_loss(standard):
    """The signal `next` compares a loss with its last value."""
    tx = kdopt.dto_kd_amortized(0.1, weight_decay=0.0)
    params, update = jnp.zeros(2), jax.jit(tx.update)

    def follow(*rows):
        state = tx.init(params)
        for row in rows:
            _, state = update(params, state, params, values=np.float32(row))
        return state

    absent = follow([1.0, 2.0], [1.0, 0.0], [1.0, 1.0])
    # the second has halved meanwhile, so it loses weight
    assert absent.memory["logits"][1] < -0.05 < 0.05 < absent.memory["logits"][0]
    np.testing.assert_allclose(absent.memory["log_gaps"], 0, atol=1e-6)
