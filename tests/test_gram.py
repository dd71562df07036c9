"""The two passes over the gradients: against numpy, and at the limits of dtypes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt
from kdopt._gram_rows import sum_leaves_on_gpu
from tests import _samplers

TREE = {
    "matrix": (256, 128),
    "tall": (8191, 4),
    "odd": (130, 257),
    "small": (16, 24),
    "alike": (16, 24),
    "vector": (8,),
    "number": (),
}


def draw(k):
    """K trees of numpy arrays, with leaves of every kind that ``gram`` tells apart."""
    rng = np.random.default_rng(0)
    return tuple(
        {
            name: np.asarray(rng.normal(size=shape), np.float32)
            for name, shape in TREE.items()
        }
        for _ in range(k)
    )


def exact_gram(trees):
    rows = [np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in trees]
    return np.float64(rows) @ np.float64(rows).T


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gram_equals_the_matrix_product(x64, k):
    rows = _samplers.generic(0, k)
    got = jax.jit(kdopt.gram)(_samplers.trees(rows))
    np.testing.assert_allclose(got, rows @ rows.T, rtol=1e-12)
    assert got.dtype == jnp.float64
    np.testing.assert_array_equal(got, np.asarray(got).T)


@pytest.mark.parametrize("k", [2, 8, 9, 40])
def test_gram_of_few_and_of_many_losses(k):
    """Up to eight in one loop, more by a matrix product."""
    trees = draw(k)
    got, exact = jax.jit(kdopt.gram)(trees), exact_gram(trees)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact, atol=1e-6 * exact.max())


@pytest.mark.parametrize("k", [1, 2, 5])
def test_sums_as_on_a_gpu(k):
    """Small leaves are joined; a tall leaf of odd size has no good rows."""
    trees = draw(k)
    columns = list(zip(*map(jax.tree.leaves, trees), strict=True))
    pairs = [(i, j) for i in range(k) for j in range(i, k)]

    def products(group):
        return [sum(parts[i] * parts[j] for parts in group) for i, j in pairs]

    exact = exact_gram(trees)
    got = jax.jit(lambda c: sum_leaves_on_gpu(products, c, jnp.dtype("float32")))(
        columns
    )
    np.testing.assert_allclose(
        got, [exact[pair] for pair in pairs], atol=1e-6 * exact.max()
    )


@pytest.mark.parametrize("k", [2, 12])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_gram_of_sharded_gradients(k, kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
    specs = {
        "matrix": P(None, ("data", "model")),
        "tall": P(None, "model"),
        "odd": P("model"),
        "small": P("data", "model"),
        "alike": P("model"),
        "vector": P("data"),
        "number": P(),
    }
    trees = draw(k)
    grads = tuple(
        {
            name: jax.device_put(x, NamedSharding(mesh, specs[name]))
            for name, x in t.items()
        }
        for t in trees
    )
    exact = exact_gram(trees)
    np.testing.assert_allclose(
        jax.jit(kdopt.gram)(grads), exact, atol=1e-6 * exact.max()
    )
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(
            jax.jit(kdopt.gram)(grads), exact, atol=1e-6 * exact.max()
        )


def test_gram_of_many_losses_never_holds_a_product_per_number():
    """A tall leaf of few columns: k * k products for each row would be 210 MB."""
    tall = jax.ShapeDtypeStruct((2**15, 4), jnp.float32)
    compiled = jax.jit(kdopt.gram).lower((tall,) * 40).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gram_is_summed_in_float32(dtype):
    """A million ones: a half-precision sum stops at 2048 or 256."""
    ones = np.ones(1_000_000, dtype)
    got = jax.jit(kdopt.gram)((ones, (2 * ones).astype(dtype)))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[1e6, 2e6], [2e6, 4e6]], rtol=1e-5)


def test_gram_of_mixed_dtypes():
    tree = {"half": jnp.full(2, 3, jnp.float16), "full": jnp.full(2, 2.0)}
    np.testing.assert_allclose(kdopt.gram((tree,)), [[26.0]])


def test_gram_does_not_overflow_half_precision():
    """300^2 is above the largest float16."""
    np.testing.assert_allclose(kdopt.gram((jnp.array([300.0], jnp.float16),)), 9e4)


def test_combine_keeps_dtypes_and_sums_in_float32():
    tree = {"half": jnp.ones(2, jnp.bfloat16), "full": jnp.ones(3)}
    weights = jnp.array([1.0, 1 / 512, 1 / 512, 1 / 512, 1 / 512])
    got = jax.jit(kdopt.combine)((tree,) * 5, weights)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, tree)
    # one addend at a time, each 1/512 would be lost to rounding in bfloat16
    np.testing.assert_allclose(got["half"].astype(float), 1 + 1 / 128)
    np.testing.assert_allclose(got["full"], 1 + 1 / 128, rtol=1e-6)


@pytest.mark.parametrize("k", [2, 12])
def test_complex_gradients_are_refused(k):
    trees = ({"a": jnp.ones(2), "b": jnp.ones(2, jnp.complex64)},) * k
    with pytest.raises(TypeError, match=r"complex64.*jax\.lax\.complex"):
        kdopt.gram(trees)
    with pytest.raises(TypeError, match="complex64"):
        kdopt.combine(trees, jnp.ones(k))


def test_combine_equals_the_sum(x64):
    rows, weights = _samplers.generic(1, 3), np.array([0.2, -1.0, 3.0])
    got = jax.jit(kdopt.combine)(_samplers.trees(rows), weights)
    expected = _samplers.tree(weights @ rows)
    chex.assert_trees_all_close(got, expected, rtol=1e-12)


def test_trees_of_other_structure_are_refused():
    with pytest.raises(ValueError, match=r"[Ll]ength|shorter|longer|argument"):
        kdopt.gram(({"a": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.ones(1)}))


def test_both_are_differentiable():
    rows = np.float32(_samplers.generic(0, 2))
    slope = jax.jit(jax.grad(lambda r: kdopt.gram(tuple(r))[0, 1]))(rows)
    np.testing.assert_allclose(slope, rows[::-1], rtol=1e-6)


LARGE = {
    "convolution": (3, 3, 64, 64),
    "matrix": (128, 256),
    "last axis not a multiple of the lanes": (256, 130),
    "one axis": (2**18,),
    "one axis of prime length": (262_147,),
    "last axis of one": (2**15, 1),
}


@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_gram_of_leaves_that_are_summed_in_rows(shape):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    exact = [[np.sum(np.float64(x) * y) for y in rows] for x in rows]
    got = jax.jit(kdopt.gram)(tuple({"w": row, "b": row[:1]} for row in rows))
    part = np.array([[np.sum(np.float64(x[:1]) * y[:1]) for y in rows] for x in rows])
    # cosines: the off-diagonal entries are small differences of large sums
    norms = np.sqrt(np.diagonal(exact + part))
    np.testing.assert_allclose(
        np.asarray(got) / np.outer(norms, norms),
        (exact + part) / np.outer(norms, norms),
        atol=1e-6,
    )


def test_gram_of_many_leaves_of_few_kinds():
    """More leaves than share one kernel, of two dtypes."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, size=(2, 150, 3))
    trees = [
        [leaf.astype([np.float32, jnp.bfloat16][n % 2]) for n, leaf in enumerate(row)]
        for row in rows
    ]
    flat = rows.reshape(2, -1)
    got = jax.jit(kdopt.gram)(tuple(trees))
    np.testing.assert_array_equal(got, flat @ flat.T)


def test_gram_of_large_leaves_under_transformations(x64):
    rows = np.random.default_rng(0).normal(size=(4, 2, 128, 128))
    exact = np.einsum("bixy,bjxy->bij", rows, rows)

    def f(pair):
        return kdopt.gram((pair[0], pair[1]))

    got = jax.jit(jax.vmap(f))(rows)
    np.testing.assert_allclose(got, exact, rtol=1e-10, atol=1e-10)
    slope = jax.jit(jax.grad(lambda pair: f(pair)[0, 1]))(rows[0])
    np.testing.assert_allclose(slope, rows[0, ::-1], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(10**8,), (2**16, 1526), (9, 3334, 3333)])
def test_gram_of_a_hundred_million_elements(shape):
    """Sequential sums would lose the fourth digit."""
    rng = np.random.default_rng(0)
    x = rng.random(shape, dtype=np.float32)
    flat = x.reshape(-1)
    exact = sum(np.sum(np.float64(c) ** 2) for c in np.array_split(flat, 64))
    np.testing.assert_allclose(jax.jit(kdopt.gram)((x,)), [[exact]], rtol=1e-5)
