"""Other implementations of the Gram matrix, to compare with ``kdopt.gram``."""

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
"""Size of a leaf below which a separate kernel costs more than a copy."""

ROW = 1024
CHUNK = 2**15


def products(grads: tuple) -> jax.Array:
    """Concatenates small leaves; one matrix product per leaf at highest precision."""
    total = jnp.zeros((len(grads), len(grads)))
    for column in _merged(grads):
        matrix = jnp.stack([x.reshape(-1).astype(jnp.float32) for x in column])
        contract = (((1,), (1,)), ((), ()))
        total += jax.lax.dot_general(matrix, matrix, contract, precision="highest")
    return total


def stacked(grads: tuple) -> jax.Array:
    """Stacks leaves of equal shape; one reduction per shape."""
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
    """Runs a Triton kernel by Pallas over many leaves of any size.

    Each program of the kernel takes ``CHUNK`` numbers of one leaf and writes its part
    of all pairs. JAX has deprecated this way to Triton.
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


def _columns(grads: tuple) -> list[Column]:
    return list(zip(*map(jax.tree.leaves, grads), strict=True))


def _merged(grads: tuple) -> list[Column]:
    """Returns the large leaves, and all small ones merged into one."""
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


@functools.cache
def _pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i, k)]


def _symmetric(k: int, upper: jax.Array) -> jax.Array:
    place = {pair: n for n, pair in enumerate(_pairs(k))}
    index = [[place[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]
    return upper[np.array(index)]
