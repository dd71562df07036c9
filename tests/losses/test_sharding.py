"""Every loss of a batch that is divided over devices, on meshes of both kinds."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kdopt import losses
from kdopt.losses._sharding import add_rows, einsum, gathered, take_rows
from tests.losses._table import CASES, Case

BATCH = 8
LABELS = jnp.array([3, 1, 0, 2, 3, 1, 2, -1])
WEIGHTS = jnp.array([1.0, 2.0, 0.0, 1.0, 1.0, 0.5, 1.0, 1.0])


def _whole_crd(s, t, y, w):
    """The batch at once, with what it leaves in the memory."""
    state = losses.crd_init(jax.random.key(0), jnp.arange(20) % 5, dim=s.shape[1])
    t, key = jax.lax.stop_gradient(t), jax.random.key(1)
    loss, state = losses.crd(s, t, y, state, key, num_negatives=4, sample_weights=w)
    return loss + jnp.mean(state.student_memory) + jnp.sum(state.log_z)


def _soft_nd(s, t, y, w):
    labels = jax.nn.softmax(jax.lax.stop_gradient(t))
    means = losses.class_means(t, labels, num_classes=6)
    return losses.nd(s, t, labels, means, sample_weights=w)


SHARDED = [case for case in CASES if case.name != "crd"]
SHARDED += [Case("crd", "vectors", _whole_crd), Case("soft_nd", "vectors", _soft_nd)]

MESHES = {
    "auto": ((8,), AxisType.Auto),
    "explicit": ((8,), AxisType.Explicit),
    "explicit, features too": ((4, 2), AxisType.Explicit),
}


def mesh(name):
    shape, kind = MESHES[name]
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], (kind,) * len(shape))


def sample(kind, seed):
    rng = np.random.default_rng(seed)
    shapes = {"logits": (BATCH, 6), "vectors": (BATCH, 6)}
    if kind in shapes:
        return jnp.asarray(rng.normal(size=shapes[kind]), jnp.float32)
    stages = [(BATCH, 5, 5, 4), (BATCH, 3, 3, 4)]
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in stages)


@functools.cache
def differentiated(case):
    return jax.jit(jax.value_and_grad(case.call))


def put(x, mesh):
    """Rows over the first axis of the mesh, features over the second if it has one."""
    axes = ["data", *[None] * (x.ndim - 1)]
    if x.ndim > 1 and "model" in mesh.axis_names:
        axes[-1] = "model"
    return jax.device_put(x, NamedSharding(mesh, P(*axes)))


@functools.cache
def on_one_device(case):
    inputs = sample(case.kind, 0), sample(case.kind, 1), LABELS, WEIGHTS
    return inputs, differentiated(case)(*inputs)


def assert_same(got, expected):
    for ours, theirs in zip(
        jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)


def on_meshes():
    """Every second loss on one explicit mesh; the first of a kind on all meshes."""
    kinds = set()
    turns = itertools.cycle([{"explicit, features too"}, set(), {"explicit"}, set()])
    for case in SHARDED:
        chosen = set(MESHES) if case.kind not in kinds else next(turns)
        kinds.add(case.kind)
        for name in MESHES:
            marks = [] if name in chosen else [pytest.mark.slow]
            yield pytest.param(case, name, marks=marks, id=f"{case.name}-{name}")


@pytest.mark.parametrize(("case", "name"), list(on_meshes()))
def test_value_and_gradient_are_those_of_one_device(case, name):
    inputs, expected = on_one_device(case)
    divided = jax.tree.map(functools.partial(put, mesh=mesh(name)), inputs)
    with jax.set_mesh(mesh(name)):
        got = differentiated(case)(*divided)
    assert_same(got, expected)


@pytest.mark.parametrize("name", ["kd", "dkd", "rkd", "nd", "class_means", "crd"])
def test_only_the_student_is_divided_and_no_mesh_is_set(name):
    [case] = [case for case in SHARDED if case.name == name]
    (s, *rest), expected = on_one_device(case)
    assert_same(differentiated(case)(put(s, mesh("explicit")), *rest), expected)


@pytest.mark.parametrize("name", ["explicit", "explicit, features too"])
def test_products_keep_the_sharding_of_their_operands(name):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(8, 6)), jnp.float32) for _ in range(2))
    a, b = (put(z, mesh(name)) for z in (x, y))
    for subscripts in ("ic,jc->ij", "bi,bj->ij", "bc,bc->b", "bi,bj->bij"):
        got = jax.jit(functools.partial(einsum, subscripts))(a, b)
        np.testing.assert_allclose(got, jnp.einsum(subscripts, x, y), rtol=1e-5)
    table = jax.jit(functools.partial(einsum, "ic,jc->ij"))(a, b)
    assert jax.typeof(table).sharding.spec == P("data", None)
    # Nothing to say where nothing is divided.
    np.testing.assert_allclose(einsum("ij,jk->ik", x, y.T), x @ y.T, rtol=1e-5)


@pytest.mark.parametrize("name", ["explicit", "explicit, features too"])
def test_rows_are_taken_and_added(name):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    index = np.array([3, 1, 0, 1, 7, 3, 3, 2])
    a, i = put(x, mesh(name)), put(jnp.asarray(index), mesh(name))
    np.testing.assert_array_equal(jax.jit(take_rows)(a, i), x[index])
    np.testing.assert_array_equal(jax.jit(take_rows)(x, i), x[index])
    expected = np.zeros((9, 6), np.float32)
    np.add.at(expected, index, x)
    got = jax.jit(add_rows, static_argnums=2)(a, i, 9)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert not any(jax.typeof(gathered(a, axis=None)).sharding.spec)
    np.testing.assert_array_equal(gathered(a), x)
