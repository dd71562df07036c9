"""The contract of every method, each test over the whole table of methods.

Mathematics and faults are tested for every row; by default ``vmap`` and ``scan`` for
every third. What surrounds the weights of a method (pytrees, dtypes, chains, shardings,
accumulation) is tested once per engine: half of the rows are a function of the Gram
matrix in one ``from_gram`` call.
"""

import functools
import inspect
import re
from collections import namedtuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import kdopt
from tests import _asserts, _samplers
from tests._methods import (
    BALANCERS,
    GOLDEN_GRADS,
    GOLDEN_VALUES,
    METHOD,
    METHODS,
    first_step,
    jitted,
    one_per_engine,
    transform,
    with_k,
)
from tests._turns import in_turn

AXIS_TYPES = (AxisType.Auto, AxisType.Explicit)

ENGINES = one_per_engine(METHODS)


def if_often(name, k):
    """Marks of a method at K losses: by default at few and most, an engine at all."""
    often = name in ENGINES or k in (METHOD[name].few, METHOD[name].ks[-1])
    return [] if often else [pytest.mark.slow]


PLUMBED = [method.name for method in METHODS if method.plumbing]
every_method = pytest.mark.parametrize("name", PLUMBED)
every_engine = pytest.mark.parametrize("name", ENGINES)
every_method_and_k = pytest.mark.parametrize(
    ("name", "k"),
    [pytest.param(name, k, marks=if_often(name, k)) for name, k in with_k(METHODS)],
)

PARAMS = _samplers.generic(99, 1)[0]


@functools.cache
def params(dtype=jnp.float32):
    with jax.ensure_compile_time_eval():  # arrays, even where a step is traced
        return _samplers.tree(PARAMS, dtype)


@functools.cache
def batch(k, seed=0, kind="generic", dtype=jnp.float32):
    """Gradients and values of one step."""
    grads = _samplers.trees(_samplers.KINDS[kind](seed, k), dtype)
    return grads, jnp.asarray(_samplers.values(seed, k), jnp.float32)


def most(name):
    """The largest K of a method."""
    return METHOD[name].ks[-1]


def few(name):
    """The K of the tests that need only one."""
    return METHOD[name].few


def all_finite(tree):
    # in float32, as numpy has no bfloat16
    leaves = (np.asarray(x, np.float32) for x in jax.tree.leaves(tree))
    return all(bool(np.all(np.isfinite(x))) for x in leaves)


def without_records(state):
    """Keeps the part of a state that affects later steps: no Gram matrix, no count."""
    if isinstance(state, kdopt.WeightsState):
        state = state._replace(gram=())
    return state._replace(notfinite_count=0) if counts_faults(state) else state


def counts_faults(state):
    return hasattr(state, "notfinite_count")


@pytest.fixture(autouse=True)
def _promotion(request):
    """Ordinary promotion for the methods that have an Optax optimiser inside."""
    callspec = getattr(request.node, "callspec", None)
    name = callspec and callspec.params.get("name")
    if name and not METHOD[name].strict:
        request.getfixturevalue("standard")


def test_names_are_unique():
    assert len(METHOD) == len(METHODS)


FINISHED = {"dot_adam", "dot_adamw", "dot_lion", "mt_adam", "multi_adam"}
"""Chains of a row of the table with transforms of Optax."""


@pytest.mark.parametrize("package", [kdopt.balancers, kdopt.scalarizers])
def test_every_method_has_a_row(package):
    factories = {
        value
        for name, value in vars(package).items()
        if inspect.isfunction(value) and name in package.__all__ and name[0] != "_"
        if name == "random_weights" or not name.endswith("_weights")
    }
    missing = factories - {method.factory for method in METHODS}
    finished = FINISHED if package is kdopt.balancers else set()
    assert {factory.__name__ for factory in missing} == finished


@pytest.mark.parametrize(
    ("name", "claim", "k"),
    [
        pytest.param(m.name, claim, k, marks=if_often(m.name, k))
        for m in METHODS
        for claim in m.claims
        for k in m.ks
        if k >= _asserts.LEAST_K.get(claim, 1)
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
    # As wide as the samples of the theorems, whose program it shares.
    grads = np.pad(GOLDEN_GRADS, ((0, 0), (0, _samplers.DIM - GOLDEN_GRADS.shape[1])))
    update, weights = first_step(name, 2)(grads, GOLDEN_VALUES)
    expected = METHOD[name].golden
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(update, expected @ grads, rtol=1e-10, atol=1e-13)


@every_method_and_k
def test_finite_on_every_kind(name, k):
    step, like = jitted(name, k), params()
    start = transform(name, k).init(like)
    for kind in _samplers.KINDS:
        grads, values = batch(k, kind=kind)
        state = start
        for _ in range(2):  # the second starts from the state of the first
            update, state = step(grads, state, like, values)
        assert all_finite(update) and all_finite(state), kind
        if counts_faults(state):
            assert state.notfinite_count == 0, kind


@every_method
def test_finite_when_losses_reach_zero(name):
    k = most(name)
    tx, step = transform(name, k), jitted(name, k)
    for values in (jnp.zeros(k), jnp.eye(k)[0], -jnp.ones(k)):
        state = tx.init(params())
        for seed in range(2):
            update, state = step(batch(k, seed)[0], state, params(), values)
        assert all_finite(update) and all_finite(state)


@every_engine
def test_unknown_extras_are_swallowed(name):
    method, k = METHOD[name], few(name)
    tx, (grads, values) = transform(name, k), batch(k)
    state, extras = tx.init(params()), {**method.extras(k), "unheard_of": object()}

    def step(grads, state):
        feed = method.feed(grads)
        return tx.update(feed, state, params(), values=values, **extras)

    update, moved = jax.eval_shape(step, grads, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params())
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)


@every_engine
def test_params_are_optional(name):
    """Without them the method is the same program."""
    method, k = METHOD[name], few(name)
    if method.needs_params or "value_fn" in method.extras(k):
        pytest.skip("works on the parameters")
    step, (grads, values) = jitted(name, k).__wrapped__, batch(k)
    state = transform(name, k).init(params())

    def program(like):
        jaxpr = jax.make_jaxpr(lambda g, s, v: step(g, s, like, v))
        return re.sub("0x[0-9a-f]+", "", str(jaxpr(grads, state, values)))

    assert program(None) == program(params())


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.needs_params])
def test_missing_params_are_asked_for(name):
    method, k = METHOD[name], few(name)
    tx, (grads, values) = transform(name, k), batch(k)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(method.feed(grads), tx.init(params()), values=values)


@every_engine
def test_second_step_does_not_recompile(name):
    k = few(name)
    step, state = jitted(name, k), transform(name, k).init(params())
    sizes = []
    for seed in range(3):
        grads, values = batch(k, seed)
        _, state = step(grads, state, params(), values)
        sizes.append(step._cache_size())
    assert sizes[0] >= 1 and len(set(sizes)) == 1


@pytest.mark.parametrize("name", in_turn(PLUMBED, 0))
def test_injected_hyperparameters_under_scan_and_cond(standard, name):
    """The state is stable, and injected numbers act like Python numbers."""
    method, k = METHOD[name], few(name)
    tx, step, injected = transform(name, k), jitted(name, k), method.inject(k)
    steps = [batch(k, seed) for seed in range(3)]
    state, updates = tx.init(params()), []
    for grads, values in steps:
        update, state = step(grads, state, params(), values)
        updates.append(update)

    def body(carry, xs):
        grads, values = xs
        feed, extras = method.feed(grads), method.extras(k)

        def move():
            return injected.update(feed, carry, params(), values=values, **extras)

        def stay():
            return jax.tree.map(jnp.zeros_like, grads[0]), carry

        update, moved = jax.lax.cond(jnp.all(values > 0), move, stay)
        return moved, update

    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *steps)
    last, scanned = jax.jit(lambda s, xs: jax.lax.scan(body, s, xs))(
        injected.init(params()), stacked
    )
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(last.inner_state, state)
    chex.assert_trees_all_close(last.inner_state, state, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(scanned, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", in_turn(PLUMBED, 1))
def test_vmap_equals_a_loop(name):
    k = few(name)
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


@every_engine
def test_any_pytree(name):
    k = few(name)
    rows = jnp.asarray(_samplers.generic(0, k), jnp.float32)
    tx, step = transform(name, k), jitted(name, k)
    like, grads = nested(jnp.ones(6)), tuple(nested(row) for row in rows)
    update, state = step(grads, tx.init(like), like, jnp.ones(k))
    chex.assert_trees_all_equal_shapes_and_dtypes(update, like)
    assert all_finite(update)
    if "combination" in METHOD[name].claims and hasattr(state, "loss_weights"):
        combined = kdopt.combine(grads, state.loss_weights)
        chex.assert_trees_all_close(update, combined, rtol=1e-5, atol=1e-6)
    # an array alone is a tree too
    update, _ = jax.eval_shape(
        step, tuple(rows), tx.init(rows[0]), rows[0], jnp.ones(k)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(update, rows[0])


@every_engine
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_of_the_gradients_is_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        k = few(name)
        tx, (grads, values) = transform(name, k), batch(k, dtype=dtype)
        # in half precision, with gradients only
        for own in {dtype, "float32"} if dtype == "bfloat16" else {dtype}:
            state = tx.init(params(own))
            update, moved = jax.eval_shape(
                jitted(name, k), grads, state, params(own), values
            )
            chex.assert_trees_all_equal_shapes_and_dtypes(update, params(dtype))
            chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)


OTHERS = (optax.sgd(0.1, momentum=0.9), optax.adam(0.1))


@pytest.mark.parametrize("other", OTHERS, ids=["sgd", "adam"])
@every_engine
def test_goes_in_a_chain(standard, name, other):
    """Optax then sees the update as if it were a gradient."""
    method, k = METHOD[name], few(name)
    tx, step = transform(name, k), jitted(name, k)

    def update_fn(feed, state, params=None, *, values=None, **extra_args):
        grads = (feed,) * k if method.scalarizer else feed
        return step(grads, state, params, values)

    # The method is compiled before: the chain runs as it is, without a compilation.
    fast = optax.GradientTransformationExtraArgs(tx.init, update_fn)
    # A scalarizer learns from values and passes the update on: it may be anywhere.
    chain = optax.chain(*((other, fast) if method.scalarizer else (fast, other)))
    state, alone, theirs = (t.init(params()) for t in (chain, tx, other))
    for seed in range(2):
        grads, values = batch(k, seed)
        got, state = chain.update(
            method.feed(grads), state, params(), values=values, **method.extras(k)
        )
        first = grads
        if method.scalarizer:
            update, theirs = other.update(grads[0], theirs, params())
            first = (update,) * k
        expected, alone = step(first, alone, params(), values)
        if not method.scalarizer:
            expected, theirs = other.update(expected, theirs, params())
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


@every_engine
def test_map_params_finds_the_params_in_the_state(name):
    """All arrays that are shaped like the parameters, and no others, to shard alike."""
    tx = transform(name, few(name))
    state = tx.init(jnp.zeros((7, 5)))
    marked = optax.tree.map_params(tx, lambda _: None, state)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
    left = [jnp.shape(leaf) for leaf in jax.tree.leaves(marked)]
    assert left == [shape for shape in shapes if shape != (7, 5)]


@functools.cache
def block_sharding(kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
    return NamedSharding(mesh, PartitionSpec("data", "model"))


@pytest.mark.parametrize("name", in_turn(ENGINES, 0, of=2))
@pytest.mark.parametrize("kind", AXIS_TYPES)
def test_sharded_parameters_give_the_same_update(name, kind):
    """Eight devices hold an eighth of each array, without telling the method."""
    k = few(name)
    tx, step = transform(name, k), jitted(name, k)
    like = jnp.linspace(-1, 1, 16).reshape(8, 2)
    grads = tuple(jnp.sin((3 + i) * like + i) for i in range(k))
    values = jnp.linspace(1, 2, k)
    expected = step(grads, tx.init(like), like, values)
    split = block_sharding(kind)
    like, grads = jax.device_put((like, grads), split)
    state = jax.tree.map(
        lambda x: jax.device_put(x, split) if x.shape == like.shape else x,
        tx.init(like),
    )
    with jax.set_mesh(split.mesh):
        got = step(grads, state, like, values)
    assert got[0].sharding.is_equivalent_to(split, 2)
    chex.assert_trees_all_close(
        *jax.tree.map(np.asarray, (got, expected)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", one_per_engine(BALANCERS))
def test_accumulates_over_batches(name):
    """``accumulate`` is to a balancer what ``optax.MultiSteps`` is to an optimiser."""
    method, k = METHOD[name], few(name)
    tx = transform(name, k)
    whole = kdopt.accumulate(tx, 2, num_losses=k)

    @jax.jit
    def step(grads, state, values):
        return whole.update(grads, state, params(), values=values, **method.extras(k))

    batches = [batch(k, seed) for seed in range(2)]
    state = whole.init(params())
    update, state = step(batches[0][0], state, batches[0][1])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(update))
    update, state = step(batches[1][0], state, batches[1][1])
    grads, values = jax.tree.map(lambda x, y: (x + y) / 2, *batches)
    expected = jitted(name, k)(grads, tx.init(params()), params(), values)
    chex.assert_trees_all_close((update, state.inner), expected, rtol=1e-5, atol=1e-6)


def poisoned(tree, bad):
    return jax.tree.map(lambda x: jnp.full_like(x, bad), tree)


@every_method
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_bad_gradients_leave_the_state_sane(name, bad):
    """The update shows the fault, the state does not, and the next step is finite."""
    method, k = METHOD[name], most(name)
    tx, step = transform(name, k), jitted(name, k)
    grads, values = batch(k)
    state = tx.init(params())
    for _ in range(k):  # each loss has had its turn, if they take turns
        _, state = step(grads, state, params(), values)
    broken = (poisoned(grads[0], float(bad)), *grads[1:])
    update, held = step(broken, state, params(), values)
    assert all_finite(update) == (bad in method.hides)
    assert all_finite(without_records(held))
    learns_from_others = method.scalarizer and (method.needs_values or method.extras(k))
    if counts_faults(state) and not learns_from_others:
        chex.assert_trees_all_equal(without_records(held), without_records(state))
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
    """Two transforms from one factory share nothing."""
    k = few(name)
    first, second = METHOD[name].make(k), METHOD[name].make(k)
    chex.assert_trees_all_equal(first.init(params()), second.init(params()))
    assert isinstance(first, optax.GradientTransformationExtraArgs)


@every_engine
def test_not_differentiated_through_the_weights(name):
    """Weights are constants for an outer derivative, which is not NaN."""
    method, k = METHOD[name], few(name)
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
