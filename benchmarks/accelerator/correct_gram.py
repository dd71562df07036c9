"""Compares the Gram matrix on the device with double precision on the host."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import kdopt
from benchmarks.accelerator._clock import Row
from benchmarks.accelerator._compare import row

BOUND = 1e-5
"""Largest error of a cosine: a sixtieth of what TF32 does to these numbers."""

PRECISIONS = (None, "tensorfloat32", "highest")
"""Values of ``jax.default_matmul_precision``; the first is JAX's own default."""

ODD = [(3, 3, 64, 65), (128, 257), (262_147,), (2**14 + 1, 1), (5, 7, 11, 13), ()]

Gram = Callable[..., jax.Array]


def measure(tiny: bool, gram: Gram = kdopt.gram) -> Iterator[Row]:
    """Yields one row for each size, dtype, precision, number of losses and layout."""
    numbers = 10**4 if tiny else 10**8
    for shape, dtypes in (
        ((numbers,), ("float32", "bfloat16")),
        ((16 if tiny else 2**16, 1526), ("float32",)),
    ):
        rows = [_random(shape, seed) for seed in range(2)]
        for dtype in dtypes:
            cast = [jnp.asarray(x).astype(dtype) for x in rows]
            exact = _exact([np.asarray(x) for x in cast])
            for precision in PRECISIONS:
                name = f"{numbers:.0e} numbers {list(shape)}, {dtype}, {precision}"
                with jax.default_matmul_precision(precision):
                    yield _row(name, jax.jit(gram)(tuple(cast)), exact)
    yield from _numbers_of_losses(tiny, gram)
    yield from _layouts(gram)


def _numbers_of_losses(tiny: bool, gram: Gram) -> Iterator[Row]:
    """Checks leaves of odd shapes and many small ones, of two dtypes."""
    small = [(3 + n % 5, 1 + n % 7) for n in range(6 if tiny else 24)]
    shapes = [*(ODD[3:] if tiny else ODD), *small]

    def check(job: tuple[int, str | None]) -> Row:
        k, precision = job
        trees = [
            [
                jnp.asarray(_random(shape, 100 * i + n)).astype(
                    "bfloat16" if n % 3 == 0 else "float32"
                )
                for n, shape in enumerate(shapes)
            ]
            for i in range(k)
        ]
        flat = [
            np.concatenate([np.asarray(x, np.float64).ravel() for x in tree])
            for tree in trees
        ]
        with jax.default_matmul_precision(precision):
            got = jax.jit(gram)(tuple(trees))
        name = f"{len(shapes)} odd leaves, K = {k}, {precision}"
        return _row(name, got, np.array(flat) @ np.array(flat).T)

    jobs = [(k, None) for k in ((2, 9) if tiny else range(1, 10))]
    if not tiny:
        jobs += [(16, precision) for precision in PRECISIONS]
    with ThreadPoolExecutor(2 if tiny else 12) as pool:
        yield from pool.map(check, jobs)


def _layouts(gram: Gram) -> Iterator[Row]:
    """Checks gradients that are sharded over one device."""
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    spec = PartitionSpec("data")
    rows = [_random((256, 300), seed) for seed in range(3)]
    exact = _exact(rows)
    placed = tuple(jax.device_put(x, NamedSharding(mesh, spec)) for x in rows)
    yield _row("NamedSharding on one device", jax.jit(gram)(placed), exact)
    mapped = jax.shard_map(
        functools.partial(gram, axis_name="data"),
        mesh=mesh,
        in_specs=spec,
        out_specs=PartitionSpec(),
    )
    yield _row("shard_map on one device", jax.jit(mapped)(placed), exact)


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draws a number that ten bits cannot hold, times random signs and powers of 2.

    Rounding errors of other numbers would cancel in a long sum; these all have the same
    sign, so that ten-bit factors leave an error of 6e-4.
    """
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, shape, np.int8) * 2 - 1
    return np.ldexp(np.float32(1.0003) * signs, rng.integers(-2, 2, shape, np.int8))


def _exact(rows: list[np.ndarray]) -> np.ndarray:
    """Computes it in double precision, in chunks, since the whole takes gigabytes."""
    flat = [x.reshape(-1) for x in rows]
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, flat[0].size, 2**22):
        part = np.array([x[start : start + 2**22].astype(np.float64) for x in flat])
        total += part @ part.T
    return total


def _row(name: str, got: jax.Array, exact: np.ndarray) -> Row:
    norms = np.sqrt(np.diagonal(exact))
    error = np.max(np.abs(np.asarray(got, np.float64) - exact) / np.outer(norms, norms))
    return row("gram", name, float(error), BOUND)
