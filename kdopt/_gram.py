"""Gradient algebra: the only two passes over the gradients."""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Gram, PerLossGrads, Weights

Parts = tuple[jax.Array, ...]
"""One leaf of each of the K trees."""

# A leaf with fewer elements costs a kernel, not bandwidth: so some share one, but not
# many, since the time to compile a kernel grows faster than it.
_SMALL, _SHARED = 2**14, 8
# On a CPU: neighbours added before they enter a sum, and the length of such sums: a
# shorter one costs more to begin than to do, a longer one loses digits.
_LANES, _SHORTEST, _LONGEST = 4, 16, 2**14
# On a CPU: rows of a short vector. If it is sharded over as many devices, or over a
# number that divides it, each keeps its rows.
_ROWS = 16


def gram(grads: PerLossGrads, *, axis_name: str | None = None) -> Gram:
    r"""Computes the Gram matrix of K gradient trees.

    .. math:: G_{ij} = \langle g_i, g_j \rangle

    Products are summed in float32 whatever the dtype of the gradients is (in float64
    if they are float64), since a sum of 1e6 bfloat16 products has no correct digit.
    Every gradient is read once, for all K (K + 1) / 2 products; nothing is copied,
    and of a sharded gradient each device sums what it holds.

    Args:
        grads: K trees of equal structure.
        axis_name: Mesh axis over which each gradient is *sharded*, inside
            ``jax.shard_map``: the partial matrices are summed over it. Leave it out
            under ``jax.jit`` with shardings, and for gradients that are replicated.

    Returns:
        The symmetric matrix ``[k, k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> task = {"w": jnp.array([-4.0, 1.0, 1.0])}
        >>> distill = {"w": jnp.array([6.0, 1.0, 1.0])}
        >>> print(kdopt.gram((task, distill)))
        [[ 18. -22.]
         [-22.  38.]]
    """
    leaves = [jax.tree.leaves(tree) for tree in grads]
    k = len(leaves)
    dtype = accumulator_dtype(*(leaf for tree in leaves for leaf in tree))
    triangles = [
        _triangle(dtype, group) for group in _groups(zip(*leaves, strict=True))
    ]
    zero = jnp.zeros((), dtype)
    upper = {
        pair: functools.reduce(jnp.add, (entries[n] for entries in triangles), zero)
        for n, pair in enumerate(_pairs(k))
    }
    rows = [[upper[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]
    matrix = jnp.stack([jnp.stack(row) for row in rows])
    return matrix if axis_name is None else jax.lax.psum(matrix, axis_name)


def combine(grads: PerLossGrads, weights: Weights):
    r"""Combines K gradient trees into one.

    .. math:: u = \sum_i w_i \, g_i

    Args:
        grads: K trees of equal structure.
        weights: Coefficients, ``[k]``.

    Returns:
        One tree; each leaf keeps its dtype, the sum is done in at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> print(kdopt.combine(grads, jnp.array([0.6, 0.4])))
        [0. 1. 1.]
    """

    def leaf(*parts: jax.Array) -> jax.Array:
        dtype = accumulator_dtype(*parts)
        terms = (
            w.astype(dtype) * g.astype(dtype)
            for w, g in zip(weights, parts, strict=True)
        )
        return functools.reduce(jnp.add, terms).astype(parts[0].dtype)

    return jax.tree.map(leaf, *grads)


def _pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i, k)]


def _groups(leaves: Iterable[Parts]) -> list[list[Parts]]:
    """Large leaves one by one; small ones together with others of their kind."""
    alike: dict[object, list[Parts]] = {}
    for n, parts in enumerate(leaves):
        small = parts[0].size < _SMALL
        alike.setdefault(tuple(map(jax.typeof, parts)) if small else n, []).append(
            parts
        )
    return [
        group[start : start + _SHARED]
        for group in alike.values()
        for start in range(0, len(group), _SHARED)
    ]


def _triangle(dtype: jnp.dtype, group: list[Parts]) -> list[jax.Array]:
    """Inner products of all pairs i <= j, summed over a group of leaves."""
    alone = len(group) == 1
    if len(group[0]) == 1 or (alone and group[0][0].size < _SMALL):
        return _plain(dtype, group)
    # Compilers for GPU and TPU read each leaf once for all the sums, and choose their
    # shape; the one for CPU must be told.
    return jax.lax.platform_dependent(
        group,
        cpu=functools.partial(_rows_of_one if alone else _rows_of_many, dtype),
        default=functools.partial(_plain, dtype),
    )


def _plain(dtype: jnp.dtype, group: list[Parts]) -> list[jax.Array]:
    # One by one: over sharded axes they are added for all leaves before one all-reduce.
    return [jnp.sum(array) for array in _products(dtype, group)]


def _rows_of_one(dtype: jnp.dtype, group: list[Parts]) -> list[jax.Array]:
    """For a CPU: one pass, in vector instructions, over rows on all cores.

    A sum in sequence is neither fast (each addition waits for the one before) nor
    exact. So some neighbours are added first, and sums run along rows, then over them.
    Only the last axis is split: a leaf that is sharded stays where it is.
    """
    (parts,) = group
    *outer, last = parts[0].shape
    row = last // _LANES if last <= _LANES * _LONGEST else 1024
    if row < _SHORTEST or last % (row * _LANES):
        return _plain(dtype, group)
    views = [part.reshape(*outer, -1, row, _LANES) for part in parts]
    lanes = [tuple(view[..., n] for view in views) for n in range(_LANES)]
    return _sums(_row_sums(_products(dtype, lanes)))


def _rows_of_many(dtype: jnp.dtype, group: list[Parts]) -> list[jax.Array]:
    """For a CPU: one kernel for all pairs, since each kernel takes long to compile."""
    shape = group[0][0].shape
    if len(shape) == 1 and shape[0] % _ROWS == 0:
        shape = (_ROWS, shape[0] // _ROWS)
    if len(shape) < 2:
        return _plain(dtype, group)
    views = [tuple(part.reshape(shape) for part in parts) for parts in group]
    return _sums(_row_sums(_products(dtype, views)))


def _sums(rows: list[jax.Array]) -> list[jax.Array]:
    """For a CPU: all sums in one kernel, since each kernel takes long to compile.

    Over sharded axes this is one all-reduce, while a reduction with several operands
    becomes an all-gather for each.
    """
    stacked = jnp.stack(rows)
    return list(jnp.sum(stacked, tuple(range(1, stacked.ndim))))


@jax.custom_jvp
def _row_sums(arrays: list[jax.Array]) -> list[jax.Array]:
    """Sums over the last axis in one loop, so that common inputs are read once."""
    zeros = [jnp.zeros((), array.dtype) for array in arrays]

    def add(xs: Sequence[jax.Array], ys: Sequence[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(xs, ys, strict=True)]

    return list(jax.lax.reduce(arrays, zeros, add, (arrays[0].ndim - 1,)))


@_row_sums.defjvp
def _row_sums_jvp(primals: tuple, tangents: tuple) -> tuple:
    # JAX does not differentiate a reduction with several operands; it is linear.
    return _row_sums(*primals), [jnp.sum(tangent, -1) for tangent in tangents[0]]


def _products(dtype: jnp.dtype, group: Sequence[Parts]) -> list[jax.Array]:
    """Elementwise products of all pairs, added over the leaves of the group."""
    wide = [[part.astype(dtype) for part in parts] for parts in group]
    return [
        functools.reduce(jnp.add, (parts[i] * parts[j] for parts in wide))
        for i, j in _pairs(len(group[0]))
    ]
