"""Inputs of a balancer: every bad one has its message, every good form is accepted."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt._transform import check_num_losses

PARAMS = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}
TASK = {"w": jnp.array([3.0, 4.0]), "b": jnp.array(0.0)}
DISTILL = {"w": jnp.array([0.0, 2.0]), "b": jnp.array(1.0)}


def step(updates, *, tx=None, params=PARAMS, values=None):
    tx = kdopt.min_norm() if tx is None else tx
    return tx.update(updates, tx.init(PARAMS), params, values=values)


BAD_GRADIENTS = {
    "one tree": (TASK, r"structure of params themselves.*put the balancer first"),
    "an array": (jnp.ones(2), r"Expected a tuple of 2 gradient trees.*got ArrayImpl"),
    "three": ((TASK, DISTILL, TASK), r"Expected 2.*got 3.*num_losses=3"),
    "none": ((), r"Expected 2.*got 0"),
    "other structure": ((TASK, {"w": TASK["w"]}), r"tree 1 has the structure"),
    "other shape": (
        (TASK, {"w": jnp.ones(3), "b": jnp.array(1.0)}),
        r"tree 1 has leaves of shapes .*\(3,\).*expected .*\(2,\)",
    ),
    "keys that are not numbers": (
        {"task": TASK, "distill": DISTILL},
        r"Expected a tuple of 2 gradient trees.*got dict",
    ),
}


@pytest.mark.parametrize("case", BAD_GRADIENTS)
def test_bad_gradients(case):
    updates, message = BAD_GRADIENTS[case]
    with pytest.raises(ValueError, match=message):
        step(updates)


def test_other_shape_is_seen_without_params():
    with pytest.raises(ValueError, match="tree 1 has the structure"):
        step((TASK, {"w": TASK["w"]}), params=None)


def test_tuple_shaped_params():
    params = (jnp.ones(2), jnp.ones(2))
    tx = kdopt.min_norm()
    with pytest.raises(ValueError, match=r"if params is a tuple, its parts are not"):
        tx.update(params, tx.init(params), params)
    grads = (params, (jnp.zeros(2), jnp.ones(2)))
    update, _ = tx.update(grads, tx.init(params), params)
    chex.assert_trees_all_equal_shapes(update, params)


def test_named_tuple_params_are_not_losses():
    pair = kdopt.balancers.LinearState(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="got LinearState"):
        step(pair)


def test_balancer_that_is_second_in_its_chain(standard):
    tx = optax.chain(kdopt.linear([1.0, 1.0]), kdopt.min_norm())
    with pytest.raises(ValueError, match="put the balancer first in its"):
        step((TASK, DISTILL), tx=tx)
    with pytest.raises(ValueError, match="Expected a tuple of 2 gradient trees"):
        step((TASK, DISTILL), tx=tx, params=None)


@pytest.mark.parametrize(
    "form",
    [list, tuple, lambda pair: dict(enumerate(pair))],
    ids=["list", "tuple", "mapping"],
)
def test_forms_that_get_in(form):
    expected = step((TASK, DISTILL))
    chex.assert_trees_all_equal(step(form((TASK, DISTILL))), expected)


def test_mapping_is_taken_in_the_order_of_its_keys():
    expected, _ = step((TASK, DISTILL), tx=kdopt.linear([1.0, 0.0]))
    got, _ = step({1: DISTILL, 0: TASK}, tx=kdopt.linear([1.0, 0.0]))
    chex.assert_trees_all_equal(got, expected)


BAD_VALUES = {
    "missing": (None, r"pass them by name, tx\.update.*optimizer\.update"),
    "three": (jnp.ones(3), r"Expected 2 loss values.*\(3,\)"),
    "a scalar": (jnp.array(1.0), r"Expected 2 loss values.*\(\)"),
    "a matrix": (jnp.ones((2, 1)), r"Expected 2 loss values.*\(2, 1\)"),
    "one in a tuple": ((1.0,), r"Expected 2 loss values.*\(1,\)"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(case):
    values, message = BAD_VALUES[case]
    with pytest.raises(ValueError, match=message):
        step((TASK, DISTILL), tx=kdopt.dto_kd(), values=values)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2.0),
        [1.0, jnp.array(2.0)],
        np.array([1.0, 2.0]),
        jnp.array([1.0, 2.0], jnp.bfloat16),
        (jnp.array(1.0, jnp.float16), jnp.array(2)),
    ],
    ids=["tuple", "list", "numpy", "bfloat16", "mixed"],
)
def test_forms_of_values(values):
    got = step((TASK, DISTILL), tx=kdopt.dto_kd(), values=values)
    expected = step((TASK, DISTILL), tx=kdopt.dto_kd(), values=jnp.array([1.0, 2.0]))
    chex.assert_trees_all_equal(got, expected)


def test_zero_losses_are_floored():
    tx = kdopt.dto_kd(eps=1e-3)
    _, state = step((TASK, DISTILL), tx=tx, values=jnp.array([0.0, 1.0]))
    _, floor = step((TASK, DISTILL), tx=tx, values=jnp.array([1e-3, 1.0]))
    chex.assert_trees_all_equal(state, floor)
    assert state.notfinite_count == 0


def test_nan_gradients_hold_the_weights():
    tx = kdopt.min_norm()
    _, state = tx.update((TASK, DISTILL), tx.init(PARAMS))
    broken = jax.tree.map(lambda x: x * jnp.nan, TASK)
    update, held = tx.update((broken, DISTILL), state)
    assert bool(jnp.all(jnp.isnan(update["w"])))
    chex.assert_trees_all_equal(held.loss_weights, state.loss_weights)
    assert held.notfinite_count == 1
    _, twice = tx.update((broken, DISTILL), held)
    assert twice.notfinite_count == 2


def test_weights_that_are_not_finite_are_held():
    """A user's own method may divide by zero."""
    tx = kdopt.from_weights(lambda gram: 1 / jnp.diagonal(gram))
    zero = jax.tree.map(jnp.zeros_like, TASK)
    update, state = step((TASK, zero), tx=tx)
    np.testing.assert_allclose(state.loss_weights, 0.5)
    assert state.notfinite_count == 1
    chex.assert_trees_all_close(update, jax.tree.map(lambda g: g / 2, TASK))


@pytest.mark.parametrize("num_losses", [0, -1, 2.0, "2", None, jnp.array(2)])
def test_num_losses_is_checked(num_losses):
    """optax.inject_hyperparams turns it into an array."""
    with pytest.raises(ValueError, match=r"an int of at least 1.*static_args="):
        check_num_losses(num_losses)


def test_num_losses_is_checked_at_the_factory():
    with pytest.raises(ValueError, match="num_losses must be an int of at least 1"):
        kdopt.from_weights(lambda gram: gram[0], num_losses=0)


def test_state_of_a_method_is_carried_and_held():
    def counted(gram, count):
        return jnp.ones(2), count + 1

    tx = kdopt.from_weights(counted, initial_state=jnp.zeros((), jnp.int32))
    _, state = tx.update((TASK, DISTILL), tx.init(PARAMS))
    _, state = tx.update((TASK, DISTILL), state)
    assert state.inner == 2 and state.inner.dtype == jnp.int32
    nan = jax.tree.map(lambda x: x * jnp.nan, TASK)
    assert tx.update((nan, DISTILL), state)[1].inner == 2


@pytest.mark.parametrize("needs_values", [False, True])
@pytest.mark.parametrize("initial_state", [None, jnp.zeros(2)])
def test_a_function_takes_only_what_it_asked_for(needs_values, initial_state):
    """The one-argument form first; all four return what they were given."""
    seen = []

    def weights_fn(gram, *rest):
        seen.append(rest)
        weights = gram[0] + sum(rest)
        return weights if initial_state is None else (weights, rest[-1] + 1)

    tx = kdopt.from_weights(
        weights_fn, needs_values=needs_values, initial_state=initial_state
    )
    values = jnp.array([1.0, 2.0]) if needs_values else None
    state = tx.init(PARAMS)
    for count in range(2):
        _, state = tx.update((TASK, DISTILL), state, values=values)
        added = (values if needs_values else 0) + (initial_state is not None) * count
        expected = kdopt.gram((TASK, DISTILL))[0] + added
        np.testing.assert_allclose(state.loss_weights, expected)
    assert {len(rest) for rest in seen} == {needs_values + (initial_state is not None)}


def test_inner_state_has_the_dtype_of_the_gram_matrix(x64):
    """Not the default float dtype of when the transform was built."""
    tx = kdopt.from_weights(lambda g, s: (g[0], s), initial_state=(0.5, 3))
    for dtype in (jnp.float32, jnp.float64):
        state = tx.init(jnp.ones(2, dtype))
        assert state.inner[0].dtype == state.gram.dtype == dtype
        assert jnp.issubdtype(state.inner[1].dtype, jnp.integer)


def test_update_is_the_combination():
    tx = kdopt.from_weights(lambda gram: jnp.array([2.0, -1.0]))
    update, state = step((TASK, DISTILL), tx=tx)
    chex.assert_trees_all_equal(
        update, jax.tree.map(lambda t, d: 2 * t - d, TASK, DISTILL)
    )
    chex.assert_trees_all_close(state.gram, kdopt.gram((TASK, DISTILL)))


def test_loss_weights_finds_the_one_balancer(standard):
    tx = optax.chain(kdopt.linear([0.3, 0.7]), optax.adam(0.1))
    np.testing.assert_allclose(kdopt.loss_weights(tx.init(PARAMS)), [0.3, 0.7])
    with pytest.raises(ValueError, match="found 0"):
        kdopt.loss_weights(optax.adam(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="found 2"):
        kdopt.loss_weights((tx.init(PARAMS), tx.init(PARAMS)))


def test_loss_weights_of_a_scalarizer_need_values():
    state = kdopt.dto_kd_amortized().init(PARAMS)
    with pytest.raises(ValueError, match="depend on the loss values"):
        kdopt.loss_weights(state)
    got = kdopt.loss_weights(state, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(got, [0.75, 0.25], rtol=1e-6)
