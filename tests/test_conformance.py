"""What every method owes its caller, one test for the whole table of methods."""

import functools
from collections import namedtuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _asserts, _samplers
from tests._methods import (
    GOLDEN_GRADS,
    GOLDEN_VALUES,
    METHOD,
    METHODS,
    first_step,
    jitted,
    transform,
    with_k,
)

every_method = pytest.mark.parametrize("name", METHOD)
every_method_and_k = pytest.mark.parametrize(("name", "k"), with_k(METHODS))

PARAMS = _samplers.generic(99, 1)[0]


def params(dtype=jnp.float32):
    return _samplers.tree(PARAMS, dtype)


def batch(k, seed=0, kind="generic", dtype=jnp.float32):
    """Gradients and values of one step."""
    grads = _samplers.trees(_samplers.KINDS[kind](seed, k), dtype)
    return grads, jnp.asarray(_samplers.values(seed, k), jnp.float32)


def most(name):
    """The largest K of a method."""
    return METHOD[name].ks[-1]


def all_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(tree))


def without_records(state):
    """The part of a state that acts on later steps; the last Gram matrix does not."""
    return state._replace(gram=()) if isinstance(state, kdopt.WeightsState) else state


@pytest.fixture(autouse=True)
def _promotion(request):
    """Ordinary promotion for the methods that have an Optax optimiser inside."""
    name = getattr(request.node, "callspec", None) and request.getfixturevalue("name")
    if name and not METHOD[name].strict:
        request.getfixturevalue("standard")


def test_names_are_unique():
    assert len(METHOD) == len(METHODS)


@pytest.mark.parametrize(
    ("name", "claim", "k"),
    [
        (m.name, claim, k)
        for m in METHODS
        for claim in m.claims
        for k in m.ks
        if k > 1 or claim != "zero_if_stationary"
    ],
)
def test_theorem(x64, name, claim, k):
    theorem, kinds = _asserts.CLAIMS[claim]
    run = first_step(name, k)
    for kind in kinds:
        for seed in range(3):
            theorem(run, _samplers.KINDS[kind](seed, k), _samplers.values(seed, k))


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.golden])
def test_golden_weights(x64, name):
    update, weights = first_step(name, 2)(GOLDEN_GRADS, GOLDEN_VALUES)
    expected = METHOD[name].golden
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(update, expected @ GOLDEN_GRADS, rtol=1e-10, atol=1e-13)


@every_method_and_k
def test_finite_on_every_kind(name, k):
    tx, step = transform(name, k), jitted(name, k)
    for kind in _samplers.KINDS:
        grads, values = batch(k, kind=kind)
        update, state = step(grads, tx.init(params()), params(), values)
        assert all_finite(update), kind
        if METHOD[name].weighted and not METHOD[name].scalarizer:
            assert all_finite(state) and state.notfinite_count == 0, kind


@every_method
def test_finite_when_losses_reach_zero(name):
    k = most(name)
    tx, step = transform(name, k), jitted(name, k)
    for values in (jnp.zeros(k), jnp.eye(k)[0], -jnp.ones(k)):
        state = tx.init(params())
        for seed in range(2):
            update, state = step(batch(k, seed)[0], state, params(), values)
        assert all_finite(update) and all_finite(state)


@every_method
def test_unknown_extras_are_swallowed(name):
    method, tx, (grads, values) = METHOD[name], transform(name, 2), batch(2)
    state, extras = tx.init(params()), {**method.extras(2), "unheard_of": object()}

    def step(grads, state):
        feed = method.feed(grads)
        return tx.update(feed, state, params(), values=values, **extras)

    update, moved = jax.eval_shape(step, grads, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params())
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)


@every_method
def test_params_are_optional(name):
    if "value_fn" in METHOD[name].extras(2):
        pytest.skip("evaluates the losses at the new parameters")
    step, (grads, values) = jitted(name, 2), batch(2)
    state = transform(name, 2).init(params())
    chex.assert_trees_all_close(
        step(grads, state, params(), values),
        step(grads, state, None, values),
        rtol=1e-6,
        atol=1e-6,
    )


@every_method
def test_second_step_does_not_recompile(name):
    method, tx, traces = METHOD[name], transform(name, 2), []

    @jax.jit
    def step(grads, state, values):
        traces.append(name)
        feed = method.feed(grads)
        return tx.update(feed, state, params(), values=values, **method.extras(2))

    state = tx.init(params())
    for seed in range(3):
        grads, values = batch(2, seed)
        _, state = step(grads, state, values)
    assert len(traces) == step._cache_size() == 1


@every_method
def test_state_is_stable_under_scan_and_cond(name):
    method, k = METHOD[name], 2
    tx, step = transform(name, k), jitted(name, k)
    steps = [batch(k, seed) for seed in range(3)]
    state, updates = tx.init(params()), []
    for grads, values in steps:
        update, state = step(grads, state, params(), values)
        updates.append(update)

    def body(carry, xs):
        grads, values = xs
        feed = method.feed(grads)

        def move():
            return tx.update(feed, carry, params(), values=values, **method.extras(k))

        def stay():
            return jax.tree.map(jnp.zeros_like, grads[0]), carry

        update, moved = jax.lax.cond(jnp.all(values > 0), move, stay)
        return moved, update

    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *steps)
    last, scanned = jax.jit(lambda s, xs: jax.lax.scan(body, s, xs))(
        tx.init(params()), stacked
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(last, state)
    chex.assert_trees_all_close(last, state, rtol=1e-5, atol=1e-6)
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *updates)
    chex.assert_trees_all_close(scanned, expected, rtol=1e-5, atol=1e-6)


@every_method
def test_vmap_equals_a_loop(name):
    k = 2
    tx, step = transform(name, k), jitted(name, k)
    steps = [batch(k, seed) for seed in range(3)]
    state = tx.init(params())
    looped = [step(grads, state, params(), values) for grads, values in steps]
    grads, values = jax.tree.map(lambda *xs: jnp.stack(xs), *steps)
    mapped = jax.jit(jax.vmap(step, in_axes=(0, None, None, 0)))(
        grads, state, params(), values
    )
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *looped)
    chex.assert_trees_all_close(mapped, expected, rtol=1e-5, atol=1e-6)


Pair = namedtuple("Pair", "left right")


def nested(x):
    """Every container and dtype in one tree."""
    return {
        "named": Pair(x, (x[:1], {"deep": [x[1:]]})),
        "none": None,
        "scalar": jnp.sum(x),
        "empty": jnp.zeros((0, 2)),
        "half": x.astype(jnp.float16),
        "brain": x.astype(jnp.bfloat16),
    }


@every_method
def test_any_pytree(name):
    rows = jnp.asarray(_samplers.generic(0, 2), jnp.float32)
    tx, step = transform(name, 2), jitted(name, 2)
    like, grads = nested(jnp.ones(6)), tuple(nested(row) for row in rows)
    update, state = step(grads, tx.init(like), like, jnp.ones(2))
    chex.assert_trees_all_equal_shapes_and_dtypes(update, like)
    assert all_finite(update)
    if not METHOD[name].scalarizer and hasattr(state, "loss_weights"):
        combined = kdopt.combine(grads, state.loss_weights)
        chex.assert_trees_all_close(update, combined, rtol=1e-5, atol=1e-6)
    # an array alone is a tree too
    update, _ = jax.eval_shape(
        step, tuple(rows), tx.init(rows[0]), rows[0], jnp.ones(2)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(update, rows[0])


@every_method
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_of_the_gradients_is_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        k = 2
        tx, (grads, values) = transform(name, k), batch(k, dtype=dtype)
        for own in {dtype, "float32"}:
            state = tx.init(params(own))
            update, moved = jax.eval_shape(
                jitted(name, k), grads, state, params(own), values
            )
            chex.assert_trees_all_equal_shapes_and_dtypes(update, params(dtype))
            chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)


OTHERS = (optax.sgd(0.1, momentum=0.9), optax.adam(0.1))


@jax.jit
def by_hand(update, states):
    return [
        other.update(update, state) for other, state in zip(OTHERS, states, strict=True)
    ]


@every_method
def test_goes_in_a_chain(standard, name):
    """Then Optax sees the update as if it were a gradient."""
    method, k, tx, others = METHOD[name], 2, transform(name, 2), OTHERS
    # A scalarizer learns from values and passes the update: it stands anywhere.
    chains = [
        optax.chain(*((other, tx) if method.scalarizer else (tx, other)))
        for other in others
    ]

    @jax.jit
    def both(grads, states, values):
        feed, extras = method.feed(grads), method.extras(k)
        return [
            chain.update(feed, state, params(), values=values, **extras)
            for chain, state in zip(chains, states, strict=True)
        ]

    states, alone = [chain.init(params()) for chain in chains], tx.init(params())
    theirs = [other.init(params()) for other in others]
    for seed in range(2):
        grads, values = batch(k, seed)
        got = both(grads, states, values)
        one, alone = jitted(name, k)(grads, alone, params(), values)
        expected = by_hand(one, theirs)
        states, theirs = [g[1] for g in got], [e[1] for e in expected]
        chex.assert_trees_all_close(
            [g[0] for g in got], [e[0] for e in expected], rtol=1e-5, atol=1e-6
        )


@every_method
def test_inject_hyperparams(standard, name):
    method, k = METHOD[name], 2
    tx, plain = method.inject(k), transform(name, k)
    step = jax.jit(
        lambda g, s, v: tx.update(
            method.feed(g), s, params(), values=v, **method.extras(k)
        )
    )
    state, expected_state = tx.init(params()), plain.init(params())
    for seed in range(2):
        grads, values = batch(k, seed)
        update, state = step(grads, state, values)
        expected, expected_state = jitted(name, k)(
            grads, expected_state, params(), values
        )
        chex.assert_trees_all_close(update, expected, rtol=1e-5, atol=1e-6)


@every_method
def test_map_params_finds_the_params_in_the_state(name):
    k = 2
    tx = transform(name, k)
    state = tx.init(params())
    marked = optax.tree.map_params(tx, lambda x: x + 7, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(marked, state)
    parts = state if type(state) is tuple else (state,)
    fields = () if METHOD[name].scalarizer else ("traces", "mu", "nu")
    copies = [getattr(part, field, ()) for part in parts for field in fields]
    moved = sum(
        bool(jnp.any(a != b)) and not bool(jnp.any(jnp.isnan(b)))
        for a, b in zip(jax.tree.leaves(marked), jax.tree.leaves(state), strict=True)
    )
    assert moved == len(jax.tree.leaves(copies))


def poisoned(tree, bad):
    return jax.tree.map(lambda x: jnp.full_like(x, bad), tree)


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bad_gradients_leave_the_state_sane(name, bad):
    method, k = METHOD[name], most(name)
    tx, step = transform(name, k), jitted(name, k)
    grads, values = batch(k)
    _, state = step(grads, tx.init(params()), params(), values)
    broken = (poisoned(grads[0], bad), *grads[1:])
    update, held = step(broken, state, params(), values)
    assert not all_finite(update)
    assert all_finite(without_records(held))
    if method.weighted and not method.scalarizer:
        chex.assert_trees_all_equal(held.loss_weights, state.loss_weights)
        chex.assert_trees_all_equal(held.inner, state.inner)
        assert held.notfinite_count == 1
    update, after = step(grads, held, params(), values)
    assert all_finite(update) and all_finite(after)


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.needs_values])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bad_values_leave_the_state_sane(name, bad):
    k = most(name)
    tx, step = transform(name, k), jitted(name, k)
    grads, values = batch(k)
    _, state = step(grads, tx.init(params()), params(), values)
    update, held = step(grads, state, params(), values.at[0].set(bad))
    assert all_finite(update) and all_finite(held)
    assert held.notfinite_count == 1
    same = held._replace(notfinite_count=state.notfinite_count)
    chex.assert_trees_all_equal(same, state)
    update, after = step(grads, held, params(), values)
    assert all_finite(update) and all_finite(after)
    assert after.notfinite_count == 1


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.needs_values])
def test_missing_values_are_asked_for(name):
    method, k = METHOD[name], most(name)
    tx, (grads, _) = transform(name, k), batch(k)
    with pytest.raises(ValueError, match=r"pass them by name.*values=values"):
        tx.update(method.feed(grads), tx.init(params()), params(), **method.extras(k))


@pytest.mark.parametrize(
    "name", [m.name for m in METHODS if not m.scalarizer and len(m.ks) > 1]
)
def test_wrong_number_of_losses(name):
    k = METHOD[name].ks[0]
    grads, values = batch(k + 1)
    tx = transform(name, k)
    with pytest.raises(ValueError, match=f"Expected {k} gradient trees.*got {k + 1}"):
        tx.update(grads, tx.init(params()), params(), values=values)


@every_method
def test_factory_is_pure(name):
    """Two transforms of one factory share nothing."""
    k = 2
    first, second = METHOD[name].make(k), METHOD[name].make(k)
    chex.assert_trees_all_equal(first.init(params()), second.init(params()))
    assert isinstance(first, optax.GradientTransformationExtraArgs)


@every_method
def test_not_differentiated_through_the_weights(name):
    """Weights are constants for an outer derivative: none is NaN or runs through."""
    method, k = METHOD[name], 2
    if method.scalarizer or not method.weighted:
        pytest.skip("no Gram matrix")
    tx = transform(name, k)
    grads, values = batch(k)
    state = tx.init(params())

    def total(factor, values):
        scaled = jax.tree.map(functools.partial(jnp.multiply, factor), grads)
        update, moved = tx.update(scaled, state, params(), values=values)
        return optax.tree.sum(update), moved.loss_weights

    (slope, of_values), weights = jax.jit(jax.grad(total, (0, 1), has_aux=True))(
        jnp.float32(1), values
    )
    chex.assert_trees_all_equal(of_values, jnp.zeros(k))
    expected = sum(w * optax.tree.sum(g) for w, g in zip(weights, grads, strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
