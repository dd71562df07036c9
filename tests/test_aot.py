"""Programs compiled for TPUs that are not here: what they compute, read and send.

Needs ``pip install 'jax[tpu]'``; run by ``pytest -m aot -s tests/test_aot.py``, which
prints the figures of ``docs/performance.md``.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt
from tests._hlo import collectives, tree_bytes

pytestmark = [pytest.mark.aot, pytest.mark.usefixtures("standard")]

WIDTH, DEPTH, BATCH = 1024, 8, 128
TOPOLOGIES = ("v5e:2x4", "v5p:2x2x2")


@functools.cache
def mesh(topology):
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    return Mesh(np.array(devices.devices), ("data",))


def losses_fn(params, x, y):
    for w in params["hidden"]:
        x = jax.nn.relu(x @ w)
    logits = x @ params["head"]
    return jnp.mean(logits**2), jnp.mean(jnp.abs(logits - y))


def struct(shape, sharding):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def plain(params, state, x, y):
    return jax.grad(lambda p: sum(losses_fn(p, x, y)))(params), state


def balanced(tx, params, state, x, y):
    values, grads = kdopt.value_and_grads(losses_fn)(params, x, y)
    return tx.update(grads, state, params, values=values)


@functools.cache
def program(topology, name, layout):
    replicated = NamedSharding(mesh(topology), P())
    sharded = NamedSharding(mesh(topology), P("data"))
    where = sharded if layout == "fsdp" else replicated
    params = {
        "hidden": [struct((WIDTH, WIDTH), where)] * DEPTH,
        "head": struct((WIDTH, 128), where),
    }
    rows = BATCH * mesh(topology).size
    transforms = {"min_norm": kdopt.min_norm(), "dot": kdopt.dot()}
    step, state = plain, ()
    if name in transforms:
        step = functools.partial(balanced, transforms[name])
        state = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(
                a.shape, a.dtype, sharding=where if a.size > 4 else replicated
            ),
            jax.eval_shape(transforms[name].init, params),
        )
    data = struct((rows, WIDTH), sharded), struct((rows, 128), sharded)
    out = jax.tree.map(lambda a: a.sharding, (params, state))
    jitted = jax.jit(step, out_shardings=out)
    traced = jitted.trace(params, state, *data)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    cost = compiled.cost_analysis()
    sent = collectives(compiled)
    print(
        f"\n{topology} {layout} {name}: {cost['flops']:.3e} flops, "
        f"{cost['bytes accessed']:.3e} bytes, "
        f"{compiled.memory_analysis().temp_size_in_bytes:.3e} bytes of temporaries, "
        f"{len(sent)} collectives of {sum(size for _, size in sent):.3e} bytes"
    )
    return compiled, tree_bytes(params)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_replicated(topology):
    """Two losses: two backward passes, two gradients on the network, nothing else."""
    base, size = program(topology, "plain", "replicated")
    exact, _ = program(topology, "min_norm", "replicated")
    dot, _ = program(topology, "dot", "replicated")
    ratio = exact.cost_analysis()["flops"] / base.cost_analysis()["flops"]
    assert 1.5 < ratio < 1.75
    for compiled, trees in ((base, 1), (exact, 2), (dot, 2)):
        sent = sum(size for _, size in collectives(compiled))
        assert trees * size <= sent <= trees * size + 4096


def test_sharded_gradients_are_not_gathered():
    base, _ = program(TOPOLOGIES[0], "plain", "fsdp")
    exact, _ = program(TOPOLOGIES[0], "min_norm", "fsdp")

    def gathered(compiled):
        return sum(s for kind, s in collectives(compiled) if kind == "all-gather")

    assert gathered(exact) <= 2 * gathered(base)
