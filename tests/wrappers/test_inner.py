"""What every wrapper must do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt import wrappers
from tests.wrappers._trees import PARAMS, draw

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
    "every": kdopt.every(kdopt.dto_kd(), 2),
    "monitor": kdopt.monitor(kdopt.dto_kd()),
    "nested": kdopt.skip_nonfinite(
        kdopt.monitor(kdopt.ema(kdopt.every(kdopt.dto_kd(), 2))), 3
    ),
}


VALUES = np.float32([1, 2])


@pytest.mark.parametrize("name", WRAPPED)
def test_scan_and_vmap_agree_with_single_steps(name, standard):
    tx = WRAPPED[name]

    def step(state, grads):
        updates, state = tx.update(grads, state, PARAMS, values=VALUES, unknown=1)
        return state, updates

    init = jax.jit(tx.init)
    state = init(PARAMS)
    rows = [draw(seed) for seed in range(3)]
    plain = []
    once = jax.jit(step)
    for row in rows:
        state, updates = once(state, row)
        plain.append(updates)
    expected = jax.tree.map(lambda *x: np.stack(x), *plain)
    # Two copies side by side: under vmap a cond runs both of its branches.
    stacked, start = (
        jax.tree.map(lambda *x: np.stack([np.stack(x)] * 2), *rows),
        jax.tree.map(lambda x: np.stack([x, x]), init(PARAMS)),
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
    state = jax.jit(tx.init)(params)
    update = jax.jit(tx.update)
    updates, after = update(draw(0, jnp.bfloat16), state, params, values=VALUES)
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
        tx.update(PARAMS, jax.jit(tx.init)(PARAMS), PARAMS, values=VALUES)


@pytest.mark.parametrize(
    "make", [lambda b: kdopt.ema(b), lambda b: kdopt.every(b, 2)], ids=["ema", "every"]
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
        "every": lambda b, axis: kdopt.every(b, 2),
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
    grads = np.float32([1, -2, 3, 0.5]), np.float32([0.5, 4, 1, -1])
    expected = jax.jit(lambda grads: run(whole, grads))(grads)
    np.testing.assert_allclose(mapped(*grads), expected, rtol=1e-5)
    if name == "skip_nonfinite":
        bad = np.float32([np.nan, *grads[0][1:]]), grads[1]
        np.testing.assert_array_equal(mapped(*bad), np.zeros(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kdopt.accumulate(kdopt.dot(), 0), "every_k must be at least 1"),
        (lambda: kdopt.skip_nonfinite(kdopt.dot(), -1), "max_consecutive must be"),
        (lambda: kdopt.ema(kdopt.min_norm(), 1.0), r"decay must lie in \[0, 1\)"),
        (lambda: kdopt.every(kdopt.min_norm(), 0), "n must be a number of steps"),
        (lambda: kdopt.monitor(kdopt.dot(), decay=1.0), r"decay must lie in \[0, 1\)"),
        (kdopt.each, "one transform per loss, got none"),
    ],
)
def test_bad_arguments_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_public_wrapper_is_exported_at_the_top():
    for name in wrappers.__all__:
        assert name.endswith("State") or getattr(kdopt, name) is getattr(wrappers, name)
