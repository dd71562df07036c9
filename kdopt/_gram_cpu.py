"""Inner products on a CPU, whose compiler must be told the shape of every sum.

A sum in sequence is neither fast (each addition waits for the one before) nor exact. So
neighbours are added first, and sums run along rows, then over them.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Parts = tuple[jax.Array, ...]
"""One leaf of each of the K trees."""

Products = Callable[[Sequence[Parts]], list[jax.Array]]
"""Elementwise products of all pairs of K leaves, added over a group of leaves."""

# Neighbours added before they enter a sum, and the length of such sums: a shorter one
# costs more to begin than to do, a longer one loses digits.
_LANES, _SHORTEST, _LONGEST = 4, 16, 2**14
# Rows of a short vector. If it is sharded over as many devices, or over a number that
# divides it, each keeps its rows.
_ROWS = 16


def sum_in_rows(products: Products, group: Sequence[Parts]) -> list[jax.Array]:
    """Sums the products of all pairs over a group of leaves, in one pass."""
    views = _split(group[0]) if len(group) == 1 else _pile(group)
    if views is None:
        return [jnp.sum(array) for array in products(group)]
    # One kernel for all sums, since each takes long to compile. Over sharded axes this
    # is one all-reduce, while a reduction of several operands would be one for each.
    stacked = jnp.stack(_row_sums(products(views)))
    return list(jnp.sum(stacked, tuple(range(1, stacked.ndim))))


def _split(parts: Parts) -> list[Parts] | None:
    """Rows and lanes of a large leaf; only its last axis is split, so shards stay."""
    *outer, last = parts[0].shape
    row = last // _LANES if last <= _LANES * _LONGEST else 1024
    if row < _SHORTEST or last % (row * _LANES):
        return None
    views = [part.reshape(*outer, -1, row, _LANES) for part in parts]
    return [tuple(view[..., n] for view in views) for n in range(_LANES)]


def _pile(group: Sequence[Parts]) -> list[Parts] | None:
    """Rows of several small leaves of one shape."""
    shape = group[0][0].shape
    if len(shape) == 1 and shape[0] % _ROWS == 0:
        shape = (_ROWS, shape[0] // _ROWS)
    if len(shape) < 2:
        return None
    return [tuple(part.reshape(shape) for part in parts) for parts in group]


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
