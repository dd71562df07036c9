"""Wrappers: what every one of them must do, and what each of them is for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt import wrappers

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}
MASK = {"head": False, "trunk": True}

WRAPPED = {
    "restrict": kdopt.restrict(kdopt.dto_kd(), MASK),
    "partition": kdopt.partition({"a": kdopt.dto_kd(), "b": kdopt.dot()}, "a"),
    "per_layer": kdopt.per_layer(kdopt.dto_kd()),
    "accumulate": kdopt.accumulate(
        optax.chain(kdopt.dto_kd(), optax.scale_by_learning_rate(0.1)), 2
    ),
    "skip_nonfinite": kdopt.skip_nonfinite(
        optax.chain(kdopt.dto_kd(), optax.scale_by_learning_rate(0.1)), 3
    ),
    "ema": kdopt.ema(kdopt.dto_kd()),
    "every": kdopt.every(2, kdopt.dto_kd()),
    "monitor": kdopt.monitor(kdopt.dto_kd()),
    "nested": kdopt.skip_nonfinite(
        kdopt.monitor(kdopt.ema(kdopt.every(2, kdopt.dto_kd()))), 3
    ),
}


def _grads(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        {
            "head": jax.random.normal(keys[i], (2,), dtype),
            "trunk": jax.random.normal(keys[i + 2], (2, 2), dtype),
        }
        for i in range(2)
    )


VALUES = jnp.array([1.0, 2.0])


@pytest.mark.parametrize("name", WRAPPED)
def test_scan_and_vmap_agree_with_single_steps(name, standard):
    tx = WRAPPED[name]

    def step(state, grads):
        updates, state = tx.update(grads, state, PARAMS, values=VALUES, unknown=1)
        return state, updates

    state = tx.init(PARAMS)
    rows = [_grads(seed) for seed in range(3)]
    plain = []
    once = jax.jit(step)
    for row in rows:
        state, updates = once(state, row)
        plain.append(updates)
    expected = jax.tree.map(lambda *x: jnp.stack(x), *plain)
    # Two copies side by side: under vmap a cond runs both of its branches.
    stacked, start = (
        jax.tree.map(lambda *x: jnp.stack([jnp.stack(x)] * 2), *rows),
        jax.tree.map(lambda x: jnp.stack([x, x]), tx.init(PARAMS)),
    )
    scan = jax.jit(jax.vmap(lambda s, g: jax.lax.scan(step, s, g)))
    end, mapped = scan(start, stacked)

    def close(x, y):
        np.testing.assert_allclose(x[0], y, 1e-4, 1e-6)

    jax.tree.map(close, mapped, expected)
    jax.tree.map(close, end, state)


@pytest.mark.parametrize("name", WRAPPED)
def test_dtypes_stay_and_weights_are_found(name, standard):
    tx = WRAPPED[name]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    state = tx.init(params)
    update = jax.jit(tx.update)
    updates, after = update(_grads(0, jnp.bfloat16), state, params, values=VALUES)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == shapes
    if name == "per_layer":
        with pytest.raises(ValueError, match="found 2: pass the part of the state"):
            kdopt.loss_weights(after)
        (after, _) = after.inner_states.values()
    assert kdopt.loss_weights(after).shape == (2,)


@pytest.mark.parametrize("name", WRAPPED)
def test_one_tree_instead_of_two_is_refused(name):
    tx = WRAPPED[name]
    with pytest.raises(ValueError, match=r"kdopt.value_and_grads"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, values=VALUES)


def test_restrict_balances_the_mask_and_sums_the_rest():
    grads = _grads(0)
    tx = kdopt.restrict(kdopt.min_norm(), lambda p: {k: k == "trunk" for k in p})
    update, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    trunks = tuple(g["trunk"] for g in grads)
    weights = kdopt.min_norm_weights(kdopt.gram(trunks))
    np.testing.assert_allclose(kdopt.loss_weights(state), weights, rtol=1e-5)
    expected = kdopt.combine(trunks, weights)
    np.testing.assert_allclose(update["trunk"], expected, rtol=1e-5)
    summed = grads[0]["head"] + grads[1]["head"]
    np.testing.assert_allclose(update["head"], summed, rtol=1e-6)


def test_a_mask_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="structure of params, be a prefix of it"):
        kdopt.restrict(kdopt.min_norm(), {"body": True}).init(PARAMS)


def test_partition_is_each_balancer_on_its_group(standard):
    tx = kdopt.partition(
        {"x": kdopt.min_norm(), "y": kdopt.dot(0.5, 0.1)}, {"head": "y", "trunk": "x"}
    )
    state, dot = tx.init(PARAMS), kdopt.dot(0.5, 0.1)
    alone = dot.init(PARAMS["head"])
    for seed in range(3):
        grads = _grads(seed)
        update, state = tx.update(grads, state, PARAMS)
        heads = tuple(g["head"] for g in grads)
        head, alone = dot.update(heads, alone)
        trunks = tuple(g["trunk"] for g in grads)
        weights = kdopt.min_norm_weights(kdopt.gram(trunks))
        np.testing.assert_allclose(update["head"], head, rtol=1e-6)
        trunk = kdopt.combine(trunks, weights)
        np.testing.assert_allclose(update["trunk"], trunk, rtol=1e-5)
    with pytest.raises(ValueError, match=r"No balancer for the labels \['z'\]"):
        kdopt.partition({"x": kdopt.min_norm()}, "z").init(PARAMS)


def test_per_layer_groups_by_leaf_or_by_prefix():
    params = {"a": {"w": jnp.zeros(2), "b": jnp.zeros(1)}, "c": {"w": jnp.zeros(3)}}
    keys = jax.random.split(jax.random.key(0), 2)
    grads = tuple(
        jax.tree.map(lambda x, key=key: jax.random.normal(key, x.shape), params)
        for key in keys
    )
    leaves = kdopt.per_layer(kdopt.min_norm())
    update, state = leaves.update(grads, leaves.init(params), params)
    assert len(state.inner_states) == 3
    pair = tuple(g["a"]["w"] for g in grads)
    expected = kdopt.combine(pair, kdopt.min_norm_weights(kdopt.gram(pair)))
    np.testing.assert_allclose(update["a"]["w"], expected, rtol=1e-5)
    layers = kdopt.per_layer(kdopt.min_norm(), depth=1)
    update, state = layers.update(grads, layers.init(params), params)
    assert len(state.inner_states) == 2
    pair = tuple(g["a"] for g in grads)
    expected = kdopt.combine(pair, kdopt.min_norm_weights(kdopt.gram(pair)))
    np.testing.assert_allclose(update["a"]["b"], expected["b"], rtol=1e-5)


@pytest.mark.parametrize("period", [3, lambda step: 3])
def test_accumulate_is_one_step_on_the_mean(period, standard):
    inner = optax.chain(kdopt.dto_kd(), optax.adam(0.1))
    tx = kdopt.accumulate(inner, period)
    state, rows = tx.init(PARAMS), [_grads(seed) for seed in range(3)]
    update = jax.jit(tx.update)
    for i, row in enumerate(rows):
        values = jnp.array([1.0 + i, 2.0])
        updates, state = update(row, state, PARAMS, values=values)
        if i < 2:
            assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
            assert state.mini_step == i + 1
    mean = jax.tree.map(lambda *x: sum(x) / 3, *rows)
    expected, after = inner.update(
        mean, inner.init(PARAMS), PARAMS, values=jnp.array([2.0, 2.0])
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), updates, expected)
    assert state.mini_step == 0 and state.full_steps == 1
    # Adam has counted one step, not three.
    counts = optax.tree.get_all_with_path(state.inner, "count")
    assert [int(c) for _, c in counts] == [1]
    np.testing.assert_allclose(
        kdopt.loss_weights(state), kdopt.loss_weights(after), rtol=1e-4
    )
    assert not any(jnp.any(g) for g in jax.tree.leaves(state.grads))


def test_accumulate_sums_half_precision_in_float32():
    """256 additions of 1 to 256 in bfloat16 would add nothing at all."""
    params = jnp.zeros(1, jnp.bfloat16)
    tx = kdopt.accumulate(kdopt.linear([1.0, 0.0]), 512)

    def step(state, g):
        updates, state = tx.update((g, g), state, params)
        return state, updates

    rows = jnp.concatenate([jnp.full(256, 256.0), jnp.ones(256)]).astype(jnp.bfloat16)
    _, updates = jax.lax.scan(step, tx.init(params), rows[:, None])
    np.testing.assert_allclose(updates[-1].astype(jnp.float32), 128.5, rtol=4e-3)


def test_skip_nonfinite_around_accumulate_leaves_one_batch_out(standard):
    tx = kdopt.skip_nonfinite(kdopt.accumulate(kdopt.linear([1.0, 1.0]), 2), 5)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    bad = jax.tree.map(lambda x: x * jnp.nan, _grads(1))
    for row in (_grads(0), bad, _grads(2)):
        updates, state = update(row, state, PARAMS)
    good = (*_grads(0), *_grads(2))
    expected = jax.tree.map(lambda *x: sum(x) / 2, *good)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), updates, expected)


def test_skip_nonfinite_holds_everything_and_gives_up(standard):
    tx = kdopt.skip_nonfinite(optax.chain(kdopt.dot(), optax.adam(0.1)), 2)
    update = jax.jit(tx.update)
    _, state = update(_grads(0), tx.init(PARAMS), PARAMS, values=VALUES)
    bad = _grads(1)
    bad[1]["head"] = bad[1]["head"].at[0].set(jnp.inf)
    held = state
    for i in range(2):
        updates, held = update(bad, held, PARAMS, values=VALUES)
        assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
        assert (held.consecutive, held.skipped) == (i + 1, i + 1)
    jax.tree.map(np.testing.assert_array_equal, held.inner, state.inner)
    updates, _ = update(bad, held, PARAMS, values=VALUES)
    assert not jnp.all(jnp.isfinite(updates["head"]))
    fine, after = update(_grads(2), held, PARAMS, values=VALUES)
    expected, _ = update(_grads(2), state, PARAMS, values=VALUES)
    jax.tree.map(np.testing.assert_array_equal, fine, expected)
    assert (after.consecutive, after.skipped) == (0, 2)
    _, after = update(_grads(2), after, PARAMS, values=VALUES.at[0].set(jnp.nan))
    assert after.skipped == 3


def test_ema_averages_the_weights_and_combines_anew():
    tx, plain = kdopt.ema(kdopt.min_norm(), 0.8), kdopt.min_norm()
    state, expected = tx.init(PARAMS), None
    for seed in range(4):
        grads = _grads(seed)
        update, state = tx.update(grads, state, PARAMS)
        _, fresh = plain.update(grads, plain.init(PARAMS), PARAMS)
        fresh = fresh.loss_weights
        expected = fresh if expected is None else 0.8 * expected + 0.2 * fresh
        np.testing.assert_allclose(kdopt.loss_weights(state), expected, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6),
            update,
            kdopt.combine(grads, expected),
        )
    bad = jax.tree.map(lambda x: x * jnp.nan, grads)
    _, held = tx.update(bad, state, PARAMS)
    np.testing.assert_array_equal(held.loss_weights, state.loss_weights)


def test_every_computes_no_gram_in_between():
    """The weights change on steps 0, 3 and 6; the Gram sits inside the branch."""
    tx = kdopt.every(3, kdopt.min_norm())
    state, seen, step = tx.init(PARAMS), [], jax.jit(tx.update)
    for seed in range(7):
        grads = _grads(seed)
        update, state = step(grads, state, PARAMS)
        seen.append(kdopt.loss_weights(state))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
            update,
            kdopt.combine(grads, seen[-1]),
        )
    changed = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
    jaxpr = jax.make_jaxpr(tx.update)(_grads(0), tx.init(PARAMS), PARAMS).jaxpr
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert "cond" in names and "reduce_sum" not in names


@pytest.mark.parametrize(
    "make", [lambda b: kdopt.ema(b), lambda b: kdopt.every(2, b)], ids=["ema", "every"]
)
@pytest.mark.parametrize(
    "inner",
    [
        kdopt.dot(),
        optax.chain(kdopt.min_norm(), optax.scale(0.1)),
        kdopt.restrict(kdopt.min_norm(), MASK),
        kdopt.monitor(kdopt.min_norm()),
        kdopt.stch(),
    ],
    ids=["dot", "chain", "restrict", "monitor", "scalarizer"],
)
def test_what_cannot_be_combined_anew_is_refused(make, inner):
    """Else the chain, the mask or the momenta would be lost without a word."""
    with pytest.raises(ValueError, match="needs a balancer whose own state holds"):
        make(inner).init(PARAMS)


def test_monitor_averages_without_bias():
    tx = kdopt.monitor(kdopt.min_norm(), names=("task", "kd"), decay=0.9)
    state, rows = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for seed in range(5):
        grads = _grads(seed)
        _, state = update(grads, state, PARAMS)
        matrix = kdopt.gram(grads)
        rows.append((matrix[0, 1] < 0, matrix[1, 1] > matrix[0, 0], matrix[0, 0]))
    shares = 0.9 ** np.arange(4, -1, -1)
    shares /= shares.sum()
    conflict, dominance, squares = (np.array(x, float) for x in zip(*rows, strict=True))
    metrics = state.metrics
    np.testing.assert_allclose(metrics["conflict/kd"], shares @ conflict, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["dominance_rate/kd"], shares @ dominance, rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics["norm/task"], shares @ np.sqrt(squares), rtol=1e-5
    )
    bad = jax.tree.map(lambda x: x * jnp.nan, grads)
    _, after = tx.update(bad, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, after.metrics, metrics)


def test_monitor_around_dot_has_no_weights():
    tx = kdopt.monitor(kdopt.dot())
    _, state = tx.update(_grads(0), tx.init(PARAMS), PARAMS)
    assert "weight/task" not in state.metrics
    assert state.metrics["norm/distill"] > 0
    assert optax.tree.get((state, ()), "metrics") is state.metrics


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kdopt.accumulate(kdopt.dot(), 0), "every_k must be at least 1"),
        (lambda: kdopt.skip_nonfinite(kdopt.dot(), -1), "max_consecutive must be"),
        (lambda: kdopt.ema(kdopt.min_norm(), 1.0), r"decay must lie in \[0, 1\)"),
        (lambda: kdopt.every(0, kdopt.min_norm()), "n must be a number of steps"),
        (lambda: kdopt.monitor(kdopt.dot(), decay=1.0), r"decay must lie in \[0, 1\)"),
        (kdopt.each, "one transform per loss, got none"),
    ],
)
def test_bad_arguments_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_each_applies_one_transform_per_gradient(standard):
    tx = kdopt.each(optax.scale(2.0), optax.trace(0.5))
    state = tx.init(PARAMS)
    for seed in range(2):
        out, state = tx.update(_grads(seed), state, PARAMS)
    first, second = _grads(0), _grads(1)
    np.testing.assert_allclose(out[0]["head"], 2 * second[0]["head"])
    expected = second[1]["head"] + 0.5 * first[1]["head"]
    np.testing.assert_allclose(out[1]["head"], expected, rtol=1e-6)


def test_every_public_wrapper_is_exported_at_the_top():
    for name in wrappers.__all__:
        assert name.endswith("State") or getattr(kdopt, name) is getattr(wrappers, name)


@pytest.mark.parametrize("name", ["accumulate", "skip_nonfinite", "every"])
def test_sharded_gradients_inside_shard_map(name):
    """Each device holds half of every gradient; all of them decide alike."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("x",), axis_types=auto)
    spec = jax.sharding.PartitionSpec("x")
    balancer = kdopt.min_norm(axis_name="x")
    make = {
        "accumulate": lambda b, axis: kdopt.accumulate(b, 1),
        "skip_nonfinite": lambda b, axis: kdopt.skip_nonfinite(b, 5, axis_name=axis),
        "every": lambda b, axis: kdopt.every(2, b),
    }[name]
    sharded, whole = make(balancer, "x"), make(kdopt.min_norm(), None)

    def run(tx, grads):
        updates, _ = tx.update(grads, tx.init(grads[0]))
        return updates

    def local(*grads):
        return run(sharded, grads)

    mapped = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    )
    grads = jnp.array([1.0, -2.0, 3.0, 0.5]), jnp.array([0.5, 4.0, 1.0, -1.0])
    np.testing.assert_allclose(mapped(*grads), run(whole, grads), rtol=1e-5)
    if name == "skip_nonfinite":
        bad = grads[0].at[0].set(jnp.nan), grads[1]
        np.testing.assert_array_equal(mapped(*bad), jnp.zeros(4))
