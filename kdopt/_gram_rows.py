"""Inner products by sums along rows, in shapes that compilers handle well.

On a CPU a sequential sum is neither fast (each addition waits for the one before) nor
exact. On a GPU summing a leaf to one number takes two kernels, the second once for each
leaf and pair of losses: with 160 leaves these take longer than reading the gradients.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Parts = tuple[jax.Array, ...]
"""One leaf of each of the K trees."""

Products = Callable[[Sequence[Parts]], list[jax.Array]]
"""Elementwise products of all pairs of K leaves, added over a group of leaves."""

# On a CPU: how many neighbours are added before they enter a sum, and the shortest and
# longest such sums: a shorter one costs more to start than to run, a longer one loses
# digits.
_LANES, _SHORTEST, _LONGEST = 4, 16, 2**14
# On a CPU: number of rows of a short vector. If it is sharded over that many devices,
# or over a divisor of that number, each keeps its rows.
_ROWS = 16
# On a GPU: size below which a leaf is joined with others, length of a row, and the
# shortest and longest last axes that serve as rows.
_SMALL, _ROW, _SHORT_AXIS, _LONG_AXIS = 2**14, 2**10, 2**6, 2**15


def add_up(parts: Sequence[Sequence[jax.Array]]) -> list[jax.Array]:
    """Adds the inner products of several groups of leaves, pair by pair."""
    return [functools.reduce(jnp.add, column) for column in zip(*parts, strict=True)]


def sum_group_on_cpu(products: Products, group: Sequence[Parts]) -> list[jax.Array]:
    """Sums the products of all pairs over leaves of one shape, in one pass."""
    views = _split(group[0]) if len(group) == 1 else _pile(group)
    if views is None:
        return [jnp.sum(array) for array in products(group)]
    # One kernel for all sums, since each takes long to compile. Over sharded axes this
    # is one all-reduce; a reduction of several operands would take one for each.
    stacked = jnp.stack(_row_sums(products(views)))
    return list(jnp.sum(stacked, tuple(range(1, stacked.ndim))))


def sum_leaves_on_gpu(
    products: Products, leaves: Sequence[Parts], dtype: jnp.dtype
) -> list[jax.Array]:
    """Sums the products of all pairs over all leaves, in one kernel per leaf.

    Small leaves are joined, and one more kernel finishes the row sums of all. Leaves
    are reshaped, so each must lie on one device.
    """
    small = [parts for parts in leaves if parts[0].size < _SMALL]
    large = [parts for parts in leaves if parts[0].size >= _SMALL]
    rows, sums = [], []
    for parts in [*large, *_join(small, dtype)]:
        row = _row_length(parts[0].shape)
        if row is None:
            sums.append([jnp.sum(product) for product in products([parts])])
        else:
            view = tuple(part.reshape(-1, row) for part in parts)
            rows.append(_row_sums(products([view])))
    if rows:
        joined = [jnp.concatenate(column) for column in zip(*rows, strict=True)]
        sums.append(_row_sums(joined))
    return add_up(sums)


def _split(parts: Parts) -> list[Parts] | None:
    """Splits the last axis of a large leaf into rows and lanes, so shards stay."""
    *outer, last = parts[0].shape
    row = last // _LANES if last <= _LANES * _LONGEST else 1024
    if row < _SHORTEST or last % (row * _LANES):
        return None
    views = [part.reshape(*outer, -1, row, _LANES) for part in parts]
    return [tuple(view[..., n] for view in views) for n in range(_LANES)]


def _pile(group: Sequence[Parts]) -> list[Parts] | None:
    """Arranges several small leaves of one shape in rows."""
    shape = group[0][0].shape
    if len(shape) == 1 and shape[0] % _ROWS == 0:
        shape = (_ROWS, shape[0] // _ROWS)
    if len(shape) < 2:
        return None
    return [tuple(part.reshape(shape) for part in parts) for parts in group]


def _join(small: Sequence[Parts], dtype: jnp.dtype) -> list[Parts]:
    """Joins the small leaves of each tree, zero-padded to whole rows."""
    if not small:
        return []

    def join(leaves: Sequence[jax.Array]) -> jax.Array:
        flat = jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])
        return jnp.pad(flat, (0, -flat.size % _ROW))

    return [tuple(join(leaves) for leaves in zip(*small, strict=True))]


def _row_length(shape: tuple[int, ...]) -> int | None:
    """Returns a row length for a leaf; None if none fits."""
    if math.prod(shape) % _ROW == 0:
        return _ROW
    return shape[-1] if _SHORT_AXIS <= shape[-1] <= _LONG_AXIS else None


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
