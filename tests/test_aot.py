"""Programs compiled for absent TPUs and GPUs: what they read and send.

Needs ``pip install 'jax[tpu]'``, or ``jax-cuda13-plugin`` with ``nvidia-cuda-nvcc`` and
``nvidia-nvvm`` of its version; run by ``JAX_PLATFORMS=cpu pytest -m aot -s
tests/test_aot.py``, which prints the figures of ``docs/performance.md``.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt
from tests._aot import compile_for, mesh
from tests._hlo import collectives, fusions, tree_bytes

pytestmark = [pytest.mark.aot, pytest.mark.usefixtures("standard")]

WIDTH, DEPTH, BATCH = 1024, 8, 128
MACHINES = ("v5e:2x4", "v5p:2x2x2", "v5e:16x16", "H100:1x1x8", "H100:2x4x1")
SMALLEST = ("v5e:2x4", "H100:1x1x8")
TRANSFORMS = {
    "min_norm": lambda: optax.chain(kdopt.min_norm(), optax.sgd(0.1, momentum=0.9)),
    "dot": lambda: optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.1)),
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
}


def losses_fn(params, x, y):
    for w in params["hidden"]:
        x = jax.nn.relu(x @ w)
    logits = x @ params["head"]
    return jnp.mean(logits**2), jnp.mean(jnp.abs(logits - y))


def parameters(sharding):
    def struct(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    return {"hidden": [struct(WIDTH, WIDTH)] * DEPTH, "head": struct(WIDTH, 128)}


def placed(machine, tree, sharding):
    """Large arrays as given, counts and matrices of losses everywhere."""
    everywhere = NamedSharding(mesh(machine), P())
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=sharding if a.size > 4 else everywhere
        ),
        tree,
    )


def report(name, compiled):
    cost = compiled.cost_analysis() or {}  # CUDA gives none
    sent = collectives(compiled)
    print(
        f"\n{name}: {cost.get('flops', 0):.3e} flops, "
        f"{cost.get('bytes accessed', 0):.3e} bytes, "
        f"{compiled.memory_analysis().temp_size_in_bytes:.3e} bytes of temporaries, "
        f"{len(fusions(compiled))} fusions, "
        f"{len(sent)} collectives of {sum(size for _, size in sent):.3e} bytes"
    )
    return compiled


@functools.cache
def step(machine, name, layout="replicated"):
    """A whole step: gradients, method, learning rate, new parameters, donated."""
    across = NamedSharding(mesh(machine), P("data"))
    where = across if layout == "fsdp" else NamedSharding(mesh(machine), P())
    params, tx = parameters(where), TRANSFORMS[name]()
    state = placed(machine, jax.eval_shape(tx.init, params), where)

    def run(params, state, x, y):
        if name == "sgd":
            extra = {}
            grads = jax.grad(lambda p: sum(losses_fn(p, x, y)))(params)
        else:
            values, grads = kdopt.value_and_grads(losses_fn)(params, x, y)
            extra = {"values": values}
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    rows = BATCH * mesh(machine).size
    data = (
        jax.ShapeDtypeStruct((rows, n), jnp.float32, sharding=across)
        for n in (WIDTH, 128)
    )
    out = jax.tree.map(lambda a: a.sharding, (params, state))
    compiled = compile_for(
        machine, run, params, state, *data, out_shardings=out, donate_argnums=(0, 1)
    )
    return report(f"{machine} {layout} step of {name}", compiled), tree_bytes(params)


def update(machine, fn, *trees, layout="replicated"):
    across = NamedSharding(mesh(machine), P("data" if layout == "fsdp" else None))
    args = [placed(machine, tree, across) for tree in trees]
    compiled = compile_for(machine, fn, *args)
    return report(f"{machine} {layout} {fn.__name__}", compiled)


def gram(grads):
    return kdopt.gram(grads)


def dot(grads, state):
    return kdopt.dot().update(grads, state)


@pytest.mark.parametrize("machine", MACHINES)
def test_replicated(machine):
    """Two losses: two backward passes, two gradients on the network, nothing else."""
    base, size = step(machine, "sgd")
    exact, _ = step(machine, "min_norm")
    streams, _ = step(machine, "dot")
    if base.cost_analysis():
        ratio = exact.cost_analysis()["flops"] / base.cost_analysis()["flops"]
        assert 1.5 < ratio < 1.75
    for compiled, trees in ((base, 1), (exact, 2), (streams, 2)):
        sent = sum(size for _, size in collectives(compiled))
        assert trees * size <= sent <= trees * size + 4096


@pytest.mark.parametrize("machine", SMALLEST)
def test_dot_is_one_kernel_for_each_leaf(machine):
    """It reads two gradients and two buffers and writes three trees, the minimum."""
    params = parameters(None)
    state = jax.eval_shape(kdopt.dot().init, params)
    compiled = update(machine, dot, (params, params), state)
    of_three = [inputs for outputs, inputs in fusions(compiled) if outputs == 3]
    assert len(of_three) == len(jax.tree.leaves(params))


@pytest.mark.parametrize("machine", SMALLEST)
@pytest.mark.parametrize("k", [2, 3])
def test_gram_of_sharded_gradients_sends_each_product_once(machine, k):
    """Partial sums over the leaves are added before they are sent."""
    compiled = update(machine, gram, (parameters(None),) * k, layout="fsdp")
    assert collectives(compiled) == [("all-reduce", k * (k + 1) // 2 * 4)]


@pytest.mark.parametrize("machine", SMALLEST)
def test_sharded_gradients_are_not_gathered(machine):
    base, _ = step(machine, "sgd", "fsdp")
    exact, _ = step(machine, "min_norm", "fsdp")

    def gathered(compiled):
        return sum(s for kind, s in collectives(compiled) if kind == "all-gather")

    assert gathered(exact) <= 2 * gathered(base)
