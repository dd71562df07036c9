"""Eight fake devices give what one device gives, whichever way the work is divided."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt

pytestmark = pytest.mark.usefixtures("standard")

AXIS = "data"
STEPS = 2
METHODS = {
    "dot": kdopt.dot,
    "dto_kd": functools.partial(kdopt.dto_kd, rescale="convex"),
    "dynamic_lambda": functools.partial(kdopt.dynamic_lambda, ema=0.5),
    "min_norm": kdopt.min_norm,
}
every_method = pytest.mark.parametrize("name", METHODS)
every_mark = pytest.mark.parametrize("check_vma", [True, False])


def encode(params, x):
    return jnp.tanh(x @ params["w"] + params["b"])


def heads(params, z, x):
    return jnp.mean((z - 0.5) ** 2), jnp.mean(jnp.sum(jnp.abs(z + x[:, :2]), axis=1))


def losses_fn(params, x):
    return heads(params, encode(params, x), x)


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    return jax.make_mesh((8,), (AXIS,), axis_types=(request.param,))


def params():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), jnp.float32)
    return {"w": w, "b": jnp.array([0.1, -0.2])}


def batch():
    return jnp.asarray(np.random.default_rng(1).normal(size=(16, 8)), jnp.float32)


def train(tx, params, x, axis_name=None, local=False):
    """Takes a few steps; ``local`` leaves the averaging to the balancer."""
    grad_fn = kdopt.value_and_grads(losses_fn, axis_name=None if local else axis_name)
    state = tx.init(params)
    for _ in range(STEPS):
        point = (
            jax.lax.pcast(params, AXIS, to="varying") if local == "pcast" else params
        )
        values, grads = grad_fn(point, x)
        update, state = tx.update(grads, state, params, values=values)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, update)
    return params


@functools.cache
def on_one_device(name):
    return jax.jit(functools.partial(train, METHODS[name]()))(params(), batch())


def assert_same(got, expected):
    got = jax.tree.map(np.asarray, jax.block_until_ready(got))
    chex.assert_trees_all_close(got, expected, rtol=2e-5, atol=1e-6)


REPLICATED, SHARDED = P(), P(AXIS)


def shard_map(
    f, mesh, *, check_vma, in_specs=(REPLICATED, SHARDED), out_specs=REPLICATED
):
    """Maps a function, and puts its arguments where it expects them."""
    mapped = jax.shard_map(
        f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma
    )

    def call(*args):
        specs = jax.tree.broadcast(in_specs, args)
        shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
        return jax.jit(mapped)(*jax.device_put(args, shardings))

    return call


@every_method
@pytest.mark.parametrize("layout", ["data", "fsdp"])
def test_jit_with_shardings(name, layout, mesh):
    if layout == "fsdp" and AxisType.Explicit in mesh.axis_types:
        pytest.skip("there the forward pass must gather its parameters itself")
    x = jax.device_put(batch(), NamedSharding(mesh, P(AXIS)))
    spec = {"w": P(AXIS), "b": P()} if layout == "fsdp" else P()
    shardings = (
        {key: NamedSharding(mesh, s) for key, s in spec.items()}
        if layout == "fsdp"
        else NamedSharding(mesh, spec)
    )
    step = jax.jit(functools.partial(train, METHODS[name]()), out_shardings=shardings)
    got = step(jax.device_put(params(), shardings), x)
    if layout == "fsdp":
        assert got["w"].sharding.spec == P(AXIS)
    assert_same(got, on_one_device(name))


@every_method
@every_mark
def test_shard_map(name, check_vma, mesh):
    f = functools.partial(train, METHODS[name](), axis_name=AXIS)
    got = shard_map(f, mesh, check_vma=check_vma)(params(), batch())
    assert_same(got, on_one_device(name))


@every_method
def test_pmap(name):
    f = functools.partial(train, METHODS[name](), axis_name=AXIS)
    got = jax.pmap(f, axis_name=AXIS, in_axes=(None, 0))(
        params(), batch().reshape(8, 2, 8)
    )
    everywhere = jax.tree.map(lambda a: jnp.stack([a] * 8), on_one_device(name))
    assert_same(got, everywhere)


@every_method
def test_vmap_with_a_named_axis(name):
    f = functools.partial(train, METHODS[name](), axis_name=AXIS)
    got = jax.jit(jax.vmap(f, axis_name=AXIS, in_axes=(None, 0)))(
        params(), batch().reshape(8, 2, 8)
    )
    assert_same(jax.tree.map(lambda a: a[3], got), on_one_device(name))


@every_mark
def test_dot_with_buffers_of_its_own_on_each_replica(check_vma, mesh):
    local = "pcast" if check_vma else True
    f = functools.partial(train, kdopt.dot(axis_name=AXIS), local=local)
    got = shard_map(f, mesh, check_vma=check_vma)(params(), batch())
    assert_same(got, on_one_device("dot"))


def collectives(mesh, tx, **kwargs):
    """Counts the arrays that cross the network in one step."""

    def step(params, x):
        values, grads = kdopt.value_and_grads(losses_fn, **kwargs)(params, x)
        return tx.update(grads, tx.init(params), params, values=values)[0]

    f = shard_map(step, mesh, check_vma=False)
    return str(jax.make_jaxpr(f)(params(), batch())).count("psum")


def test_dot_with_its_own_buffers_reduces_one_tree_and_not_two(mesh):
    leaves = len(jax.tree.leaves(params()))
    assert collectives(mesh, kdopt.dot(axis_name=AXIS)) == leaves
    assert collectives(mesh, kdopt.dot(), axis_name=AXIS) >= 2 * leaves


@every_mark
def test_weighted_grad(check_vma, mesh):
    def f(params, x, axis_name=None):
        fn = kdopt.value_and_weighted_grad(losses_fn, axis_name=axis_name)
        # the weights depend on the averaged values
        return fn(params, x, weights=lambda values: values / jnp.sum(values))

    got = shard_map(functools.partial(f, axis_name=AXIS), mesh, check_vma=check_vma)(
        params(), batch()
    )
    assert_same(got, jax.jit(f)(params(), batch()))


@pytest.mark.parametrize("name", ["dto_kd", "min_norm", "dynamic_lambda"])
@every_mark
def test_shared_mode(name, check_vma, mesh):
    """The representation is sharded, so the Gram matrix is a sum over replicas."""

    def f(params, x, axis_name=None):
        tx = METHODS[name](axis_name=axis_name)
        fn = kdopt.value_and_shared_grad(encode, heads, tx, axis_name=axis_name)
        return fn(params, x, state=tx.init(params))

    got = shard_map(functools.partial(f, axis_name=AXIS), mesh, check_vma=check_vma)(
        params(), batch()
    )
    assert_same(got, jax.jit(f)(params(), batch()))


@every_mark
def test_gram_of_sharded_gradients(check_vma, mesh):
    rows = jnp.asarray(np.random.default_rng(2).normal(size=(2, 16)), jnp.float32)
    f = functools.partial(kdopt.gram, axis_name=AXIS)
    got = shard_map(f, mesh, check_vma=check_vma, in_specs=((P(AXIS), P(AXIS)),))(
        tuple(rows)
    )
    np.testing.assert_allclose(got, rows @ rows.T, rtol=1e-5)


def test_balancer_of_sharded_gradients(mesh):
    rows = jnp.asarray(np.random.default_rng(2).normal(size=(2, 16)), jnp.float32)
    tx, alone = kdopt.min_norm(axis_name=AXIS), kdopt.min_norm()

    def f(grads):
        update, state = tx.update(grads, tx.init(grads[0]))
        return update, state.loss_weights

    mapped = shard_map(
        f,
        mesh,
        check_vma=True,
        in_specs=((P(AXIS), P(AXIS)),),
        out_specs=(P(AXIS), P()),
    )
    got, weights = mapped(tuple(rows))
    update, state = jax.jit(lambda g: alone.update(g, alone.init(g[0])))(tuple(rows))
    assert_same((got, weights), (update, state.loss_weights))


def test_state_is_sharded_as_params_are():
    """``optax.tree.map_params`` gives the buffers of DOT the shardings of params."""
    tx = kdopt.dot()
    specs = {"w": P(AXIS), "b": P()}
    got = optax.tree.map_params(
        tx,
        lambda _, spec: spec,
        tx.init(params()),
        specs,
        transform_non_params=lambda _: P(),
    )
    assert got.traces == (specs, specs) and got.count == P()
