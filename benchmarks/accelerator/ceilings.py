"""Measures the limits of the card: copies, matrix products, launches."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measure import seconds
from benchmarks.accelerator._arrays import noise, struct
from benchmarks.accelerator._clock import Budget, Loop, Program, Results, Row, build

CHAIN = 64
"""Number of kernels in a row, each of which waits for the previous one."""


def measure(tiny: bool, budget: Budget, done: Results) -> Iterator[Row]:
    """Yields one row for each ceiling."""
    del budget, done
    numbers, side = (2**16, 64) if tiny else (2**29, 8192)
    yield _row("copy", _copy(numbers), 2 * 4 * numbers / 1e9, "GB/s")
    for dtype, precision in (
        ("bfloat16", "default"),
        ("float32", "default"),
        ("float32", "highest"),
    ):
        name = f"matmul {side}, {dtype}, {precision}"
        program = _product(name, side, dtype, precision)
        yield _row(name, program, 2 * side**3 / 1e12, "TFLOP/s")
    took = _time(_chain())
    each = 1e6 * took / CHAIN
    yield {"ceiling": "launch in a program", "value": each, "unit": "us"}
    yield {"ceiling": "call of a jitted function", "value": _dispatch(), "unit": "us"}


def show(rows: list[Row]) -> str:
    """Formats the rows as one line."""
    cells = [f"{row['ceiling']} {row['value']:.4g} {row['unit']}" for row in rows]
    return "ceilings: " + "; ".join(cells)


def bandwidth(done: Results) -> float:
    """Returns the bytes per second of a copy, counting reads and writes."""
    return 1e9 * _of(done, "copy")


def launch(done: Results) -> float:
    """Returns the seconds per empty kernel of a sequence in a program."""
    return 1e-6 * _of(done, "launch in a program")


def _of(done: Results, name: str) -> float:
    return next(row["value"] for row in done["ceilings"] if row["ceiling"] == name)


def _copy(numbers: int) -> Program:
    return Program("copy", lambda _, x: x + 1, struct((1,)), struct((numbers,)))


def _product(name: str, side: int, dtype: str, precision: str) -> Program:
    square = struct((side, side), jnp.dtype(dtype))

    def step(a: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.matmul(a, x, precision=precision)

    return Program(name, step, square, square, iterations=10)


def _chain() -> Program:
    def step(_: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(CHAIN):
            x = jax.lax.optimization_barrier(x * 0.999)  # no fusion across it
        return x

    return Program("chain", step, struct((1,)), struct((128,)))


def _time(program: Program) -> float:
    built = build(program)
    if built.run is None:
        raise RuntimeError(built.error)
    # With norms of about 1, so that products neither vanish nor overflow.
    scale = max(program.inputs.shape) ** -0.5
    loop = Loop(built, noise(program.inputs, 0, scale), noise(program.carry, 1))
    times = seconds({"loop": loop}, 5)["loop"]
    return float(np.median(times)) / program.iterations


def _row(name: str, program: Program, work: float, unit: str) -> Row:
    return {"ceiling": name, "value": work / _time(program), "unit": unit}


def _dispatch(calls: int = 1000) -> float:
    """Measures the microseconds between calls without waiting for results."""
    fn, x = jax.jit(lambda x: x + 1), jnp.zeros(128)
    jax.block_until_ready(fn(x))
    began = time.perf_counter()
    for _ in range(calls):
        x = fn(x)
    jax.block_until_ready(x)
    return 1e6 * (time.perf_counter() - began) / calls
