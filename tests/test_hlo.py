"""The compiled program: how often gradients are read, sent and copied."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt
from tests._compiler import OPTIMISED
from tests._hlo import collectives, total_bytes, tree_bytes

pytestmark = pytest.mark.usefixtures("standard")

AXIS = "data"
SHAPES = {"w": (256, 128), "v": (3, 3, 32, 64), "b": (128,), "scale": (64,)}


def tree(dtype=jnp.float32, sharding=lambda shape: None):
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(shape))
        for name, shape in SHAPES.items()
    }


def compiled(fn, *args, **options):
    return jax.jit(fn, **options).lower(*args).compile(OPTIMISED)


@functools.cache
def mesh():
    return jax.make_mesh((8,), (AXIS,), axis_types=(AxisType.Auto,))


def over_first_axis(shape):
    return NamedSharding(mesh(), P(AXIS) if shape[0] % 8 == 0 else P())


def everywhere(shape):
    return NamedSharding(mesh(), P())


# ---- memory


@pytest.mark.parametrize(
    ("dtype", "k"), [("float32", 2), ("float32", 4), ("bfloat16", 2)]
)
def test_gram_reads_each_gradient_once_and_copies_none(dtype, k):
    grads = (tree(dtype),) * k
    program = compiled(kdopt.gram, *[grads])
    read = program.cost_analysis()["bytes accessed"]
    # The rest: row sums, written once and read once, and the small leaves, read again.
    assert read < 1.35 * tree_bytes(grads)
    # 1/32 of the elements of the largest leaf are row sums, in float32, of each pair.
    assert program.memory_analysis().temp_size_in_bytes < tree_bytes(tree()) * k / 8


def test_per_pair_sums_would_read_them_more_often():
    """Checks that the count above can fail."""
    grads = (tree(),) * 4

    def naive(grads):
        return [[optax.tree.vdot(x, y) for x in grads] for y in grads]

    read = compiled(naive, grads).cost_analysis()["bytes accessed"]
    assert read > 2.5 * tree_bytes(grads)


METHODS = {
    "dot": kdopt.dot,
    "streams": lambda: kdopt.streams((0.5, 0.9), dampening=0.1),
    "min_norm": kdopt.min_norm,
    "dto_kd": functools.partial(kdopt.dto_kd, rescale="convex"),
    "linear": lambda: kdopt.linear((0.5, 0.5)),
}


@pytest.mark.parametrize("name", METHODS)
def test_update_needs_no_memory_but_its_results(name):
    """Nothing as large as a gradient lies between them, however many losses."""
    tx = optax.chain(METHODS[name](), optax.scale_by_learning_rate(0.1))
    params = tree()
    state = jax.eval_shape(tx.init, params)

    def step(grads, state, params, values):
        updates, state = tx.update(grads, state, params, values=values)
        return optax.apply_updates(params, updates), state

    values = jax.ShapeDtypeStruct((2,), jnp.float32)
    program = compiled(step, (tree(), tree()), state, params, values)
    assert program.memory_analysis().temp_size_in_bytes < tree_bytes(params) / 8


# ---- network


def test_gram_of_replicated_gradients_sends_nothing():
    grads = (tree(sharding=everywhere),) * 2
    assert collectives(compiled(kdopt.gram, grads)) == []


def test_gram_of_sharded_gradients_sends_one_message_of_scalars():
    """Parameters sharded over devices (FSDP): the gradients stay where they are."""
    grads = (tree(sharding=over_first_axis),) * 3
    ((kind, size),) = collectives(compiled(kdopt.gram, grads))
    # one number for each leaf and pair
    assert kind == "all-reduce" and size <= len(SHAPES) * 6 * 4


def test_gram_of_last_axis_sharded_sends_row_sums_at_most():
    def over_last_axis(shape):
        return NamedSharding(mesh(), P(*[None] * (len(shape) - 1), AXIS))

    grads = (tree(sharding=over_last_axis),) * 2
    sent = total_bytes(compiled(kdopt.gram, grads))
    assert sent < tree_bytes(grads) / 4


@pytest.mark.parametrize("check_vma", [True, False])
def test_gram_inside_shard_map_sends_k_by_k_numbers(check_vma):
    fn = jax.shard_map(
        functools.partial(kdopt.gram, axis_name=AXIS),
        mesh=mesh(),
        in_specs=((P(None, AXIS),) * 3,),
        out_specs=P(),
        check_vma=check_vma,
    )
    leaf = jax.ShapeDtypeStruct((256, 1024), jnp.float32)
    program = compiled(fn, (leaf,) * 3)
    assert collectives(program) == [("all-reduce", 3 * 3 * 4)]


def losses_fn(params, x):
    z = jnp.tanh(x @ params["w"] + params["b"])
    z = z @ params["v"]
    return jnp.mean((z - 0.5) ** 2), jnp.mean(jnp.abs(z + x[:, :8]))


NET = {"w": (64, 128), "b": (128,), "v": (128, 8)}


def network(sharding=everywhere):
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding(shape))
        for name, shape in NET.items()
    }


def batch():
    sharding = NamedSharding(mesh(), P(AXIS))
    return jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=sharding)


def step_of(tx, **kwargs):
    def step(params, x):
        values, grads = kdopt.value_and_grads(losses_fn, **kwargs)(params, x)
        return tx.update(grads, tx.init(params), params, values=values)[0]

    return step


def plain(params, x):
    return jax.grad(lambda p: sum(losses_fn(p, x)))(params)


GRADIENT = sum(4 * int(np.prod(shape)) for shape in NET.values())
SCALARS = 64  # bytes: loss values and Gram matrices


def test_under_jit_an_exact_method_sends_its_gradients_once():
    sent = total_bytes(compiled(step_of(kdopt.min_norm()), network(), batch()))
    assert 2 * GRADIENT <= sent <= 2 * GRADIENT + SCALARS
    sent = total_bytes(compiled(plain, network(), batch()))
    assert GRADIENT <= sent <= GRADIENT + SCALARS


class Unbalanced:
    """Returns the K gradients as they are."""

    def init(self, params):
        return ()

    def update(self, grads, state, params, values):
        return grads, state


def test_with_sharded_parameters_an_exact_method_gathers_no_gradient():
    """What is gathered is what the K backward passes need."""
    args = network(over_first_axis), batch()
    out = {name: over_first_axis(shape) for name, shape in NET.items()}
    exact = compiled(step_of(kdopt.min_norm()), *args, out_shardings=out)
    base = compiled(step_of(Unbalanced()), *args, out_shardings=(out, out))

    def gathered(program):
        return sum(size for kind, size in collectives(program) if kind == "all-gather")

    assert 0 < gathered(exact) <= gathered(base)


def mapped(fn):
    return jax.shard_map(
        fn, mesh=mesh(), in_specs=(P(), P(AXIS)), out_specs=P(), check_vma=False
    )


def test_inside_shard_map_dot_sends_as_much_as_plain_sgd():
    def mean_of_plain(params, x):
        return jax.lax.pmean(plain(params, x), AXIS)

    args = network(), batch()
    sgd = total_bytes(compiled(mapped(mean_of_plain), *args))
    local = total_bytes(compiled(mapped(step_of(kdopt.dot(axis_name=AXIS))), *args))
    global_ = total_bytes(compiled(mapped(step_of(kdopt.dot(), axis_name=AXIS)), *args))
    assert local == sgd == GRADIENT
    assert global_ >= 2 * GRADIENT


def test_pmap_sends_each_gradient_once():
    step = step_of(kdopt.min_norm(), axis_name=AXIS)
    fn = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0))
    args = (
        {name: jnp.ones(shape) for name, shape in NET.items()},
        jnp.ones((8, 8, 64)),
    )
    sent = total_bytes(fn.lower(*args).compile(OPTIMISED))
    assert 2 * GRADIENT <= sent <= 2 * GRADIENT + SCALARS


# ---- arithmetic


def test_a_backward_pass_leaves_out_what_its_loss_does_not_reach():
    """A trunk and two branches of one matrix each: 3 products forward, 3 backward each.

    With the zeros of the other branch each backward pass would take 2 more.
    """
    n = 64
    params = {name: jax.ShapeDtypeStruct((n, n), jnp.float32) for name in "tab"}
    x = jax.ShapeDtypeStruct((n, n), jnp.float32)

    def branches(params, x):
        z = jnp.tanh(x @ params["t"])
        return jnp.sum(jnp.tanh(z @ params["a"])), jnp.sum(jnp.tanh(z @ params["b"]))

    program = compiled(kdopt.value_and_grads(branches), params, x)
    assert program.cost_analysis()["flops"] < 9.5 * 2 * n**3
