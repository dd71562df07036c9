"""Other ways to the Gram matrix and to the least-norm point, to be timed side by side.

None is part of kdopt. Each takes what ``kdopt.gram`` or ``kdopt.min_norm_weights``
takes.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

Column = tuple[jax.Array, ...]
"""The same leaf of each of the K trees."""

SMALL = 2**14
"""Numbers in a leaf below which a kernel of its own costs more than a copy."""

ROW = 1024
CHUNK = 2**15


def rows(grads: tuple) -> jax.Array:
    """One reduction a leaf, with an operand for each pair; one more for all the rest.

    Small leaves are concatenated. Every number is read once, however many pairs there
    are, and the sums along rows of all leaves end in one kernel instead of one a leaf
    and pair.
    """
    k = len(grads)
    parts = []
    for column in _merged(grads):
        wide = [_as_rows(x).astype(jnp.float32) for x in column]
        sums = _reduce([wide[i] * wide[j] for i, j in _pairs(k)])
        parts.append([x.reshape(-1) for x in sums])
    together = [jnp.concatenate(own) for own in zip(*parts, strict=True)]
    return _symmetric(k, jnp.stack(_reduce(together)))


def products(grads: tuple) -> jax.Array:
    """Small leaves concatenated, one matrix product a leaf at highest precision."""
    total = jnp.zeros((len(grads), len(grads)))
    for column in _merged(grads):
        matrix = jnp.stack([x.reshape(-1).astype(jnp.float32) for x in column])
        contract = (((1,), (1,)), ((), ()))
        total += jax.lax.dot_general(matrix, matrix, contract, precision="highest")
    return total


def stacked(grads: tuple) -> jax.Array:
    """Leaves of one shape stacked, then one reduction for each shape."""
    k = len(grads)
    groups: dict[tuple[int, ...], list[Column]] = {}
    for column in _columns(grads):
        groups.setdefault(column[0].shape, []).append(column)
    upper = jnp.zeros(k * (k + 1) // 2)
    for columns in groups.values():
        wide = [
            jnp.stack(own).astype(jnp.float32) for own in zip(*columns, strict=True)
        ]
        upper += jnp.stack([jnp.sum(wide[i] * wide[j]) for i, j in _pairs(k)])
    return _symmetric(k, upper)


def one_kernel(
    grads: tuple, leaves_per_kernel: int = 32, interpret: bool = False
) -> jax.Array:
    """A Triton kernel by Pallas that goes through many leaves of any size.

    Each program of the kernel takes ``CHUNK`` numbers of one leaf and writes its share
    of all pairs. JAX announces that it will drop this way to Triton.
    """
    columns = _columns(grads)
    starts = range(0, len(columns), leaves_per_kernel)
    parts = [
        _many_leaves(columns[n : n + leaves_per_kernel], interpret) for n in starts
    ]
    return _symmetric(len(grads), jnp.sum(jnp.concatenate(parts), 0))


def _many_leaves(columns: Sequence[Column], interpret: bool) -> jax.Array:
    k, sizes = len(columns[0]), [column[0].size for column in columns]
    pairs = _pairs(k)
    ends = np.cumsum([-(-size // CHUNK) for size in sizes]).tolist()
    block = 1024 if k <= 4 else 512  # sums of all pairs stay in registers

    def kernel(*refs: Any) -> None:
        out, program = refs[-1], pl.program_id(0)
        for n, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            begin = ends[n - 1] if n else 0
            inputs = refs[n * k : (n + 1) * k]

            @pl.when((program >= begin) & (program < end))
            def _(inputs: Any = inputs, size: int = size, begin: int = begin) -> None:
                first = (program - begin) * CHUNK

                def add(step: jax.Array, sums: Any) -> Any:
                    at = first + step * block + jnp.arange(block)
                    mask = at < size
                    xs = [
                        plt.load(ref.at[at], mask=mask, other=0).astype(jnp.float32)
                        for ref in inputs
                    ]
                    return tuple(
                        total + xs[i] * xs[j]
                        for total, (i, j) in zip(sums, pairs, strict=True)
                    )

                zeros = tuple(jnp.zeros(block, jnp.float32) for _ in pairs)
                steps = -(-min(CHUNK, size) // block)
                sums = jax.lax.fori_loop(0, steps, add, zeros)
                for p, total in enumerate(sums):
                    out[program, p] = jnp.sum(total)

    call = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((ends[-1], len(pairs)), jnp.float32),
        grid=(ends[-1],),
        interpret=interpret,
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return call(*(x.reshape(-1) for column in columns for x in column))


def least_norm_by_faces(gram: jax.Array) -> jax.Array:
    """The point of least norm: all faces of the simplex solved at once, the best taken.

    There are 2^K - 1 of them, so that K is small. No loop waits for the host, and no
    library is called; elimination needs no pivots, as each system is positive definite.
    """
    k, eps = len(gram), jnp.finfo(gram.dtype).eps
    squares = jnp.diagonal(gram)
    active = squares > 0
    norms = jnp.sqrt(jnp.where(active, squares, 1))
    cosines = gram / norms[:, None] / norms[None, :]
    shortest = jnp.min(jnp.where(active, norms, jnp.inf))
    inverse = jnp.where(active, shortest / norms, 0)
    hessian = cosines + inverse[:, None] * inverse[None, :]
    faces = (np.arange(1, 2**k)[:, None] >> np.arange(k)) & 1
    on = jnp.asarray(faces, gram.dtype) * active
    diagonal = jnp.eye(k)[None] * (1 - on + 4 * k * eps * on)[:, :, None]
    system = hessian[None] * on[:, :, None] * on[:, None, :] + diagonal
    right = inverse[None] * on
    table = jnp.concatenate([system, right[:, :, None]], 2)
    for p in range(k):
        pivot = table[:, p, :] / table[:, p, p, None]
        others = table - table[:, :, p, None] * pivot[:, None, :]
        table = jnp.where((jnp.arange(k) == p)[None, :, None], pivot[:, None], others)
    points = table[:, :, k] * on
    value = jnp.sum(points * right, 1)  # minus the minimum on the face
    best = jnp.argmax(jnp.where(jnp.all(points >= 0, 1), value, -jnp.inf))
    weights = points[best] * inverse
    return weights / jnp.sum(weights)


def _columns(grads: tuple) -> list[Column]:
    return list(zip(*map(jax.tree.leaves, grads), strict=True))


def _merged(grads: tuple) -> list[Column]:
    """The large leaves, and all small ones as one."""
    columns = _columns(grads)
    small = [column for column in columns if column[0].size < SMALL]
    large = [column for column in columns if column[0].size >= SMALL]
    if not small:
        return large
    flat = [
        jnp.concatenate([x.reshape(-1).astype(jnp.float32) for x in own])
        for own in zip(*small, strict=True)
    ]
    return [*large, tuple(jnp.pad(x, (0, -x.size % ROW)) for x in flat)]


def _as_rows(x: jax.Array) -> jax.Array:
    return x.reshape((-1, ROW) if x.size % ROW == 0 else (-1, x.shape[-1]))


def _reduce(arrays: list[jax.Array]) -> list[jax.Array]:
    """Sums over the last axis in one kernel."""
    zeros = [jnp.zeros((), x.dtype) for x in arrays]

    def add(xs: Any, ys: Any) -> list[jax.Array]:
        return [x + y for x, y in zip(xs, ys, strict=True)]

    return list(jax.lax.reduce(arrays, zeros, add, (arrays[0].ndim - 1,)))


@functools.cache
def _pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i, k)]


def _symmetric(k: int, upper: jax.Array) -> jax.Array:
    place = {pair: n for n, pair in enumerate(_pairs(k))}
    index = [[place[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]
    return upper[np.array(index)]
