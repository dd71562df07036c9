"""Times work inside one program, and limits the time of a part."""

import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np

Row = dict[str, Any]
"""One result, as JSON values."""

Results = dict[str, list[Row]]
"""Rows by part."""


class Budget:
    """The time that a part may take, counted from its start."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self.seconds = seconds

    def left(self, keep: float = 0.0) -> float:
        """Returns the remaining seconds, minus a reserved fraction of the whole."""
        return max(0.0, self._end - time.perf_counter() - keep * self.seconds)


class Program(NamedTuple):
    """A step that is repeated inside one compiled program.

    Attributes:
        name: Unique name among the programs that are compiled together.
        step: ``step(inputs, carry) -> carry``.
        inputs: Shapes and dtypes of the constant inputs.
        carry: Shapes and dtypes of what a step passes to the next.
        moved: Minimum number of bytes that one step reads and writes.
        iterations: Steps per call.
        options: Compiler options.
    """

    name: str
    step: Callable[[Any, Any], Any]
    inputs: Any
    carry: Any
    moved: float = 0.0
    iterations: int = 20
    options: dict[str, Any] | None = None


class Built(NamedTuple):
    """A compiled program, or the error.

    Attributes:
        program: The program that was compiled.
        run: ``run(inputs, carry) -> carry``, all iterations; ``carry`` is donated.
        seconds: Time to trace, lower and compile.
        launches: Kernels per step; loops inside it count once.
        error: Empty if it can run.
    """

    program: Program
    run: Callable[[Any, Any], Any] | None
    seconds: float
    launches: int
    error: str = ""


def repeat(step: Callable[[Any, Any], Any], iterations: int) -> Callable:
    """Makes a program of many steps, none of which the compiler can remove.

    The number is known to the compiler, so that no step waits for the host. A barrier
    makes the inputs depend on the carry: otherwise the compiler would hoist everything
    that depends only on the inputs out of the loop.
    """

    def run(inputs: Any, carry: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            token = min(jax.tree.leaves(carry), key=lambda leaf: leaf.size)
            held, _ = jax.lax.optimization_barrier((inputs, token))
            return step(held, carry)

        return jax.lax.fori_loop(0, iterations, body, carry)

    return run


def build(program: Program) -> Built:
    """Compiles a program for the default device; returns errors in the result."""
    began = time.perf_counter()
    looped = jax.jit(repeat(program.step, program.iterations), donate_argnums=1)
    try:
        lowered = looped.lower(program.inputs, program.carry)
        compiled = lowered.compile(compiler_options=program.options)
    except Exception as error:  # the other programs still run
        took = time.perf_counter() - began
        return Built(program, None, took, 0, _first_line(error))
    took = time.perf_counter() - began
    return Built(program, compiled, took, count_launches(compiled.as_text()))


def build_all(
    programs: Iterable[Program], seconds: float, workers: int = 12
) -> dict[str, Built]:
    """Compiles programs concurrently, in this order, within the given time."""
    pool = ThreadPoolExecutor(workers)
    futures = {
        program.name: (program, pool.submit(build, program)) for program in programs
    }
    wait([future for _, future in futures.values()], timeout=seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    late = f"not compiled in {seconds:.0f} s"
    return {
        name: future.result()
        if future.done() and not future.cancelled()
        else Built(program, None, seconds, 0, late)
        for name, (program, future) in futures.items()
    }


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def untimed(built: dict[str, Built], budget: Budget) -> dict[str, str]:
    """Returns why programs are not timed: a compile error or no time left."""
    late = "" if budget.left() else "no time left"
    errors = {name: one.error or late for name, one in built.items()}
    return {name: error for name, error in errors.items() if error}


def timing(built: Built, times: np.ndarray, bandwidth: float) -> Row:
    """Returns the fields that every row of a program has.

    Args:
        built: The program.
        times: Seconds of each call with all iterations.
        bandwidth: Bytes per second of a copy.
    """
    each = times / built.program.iterations
    return {
        "us": 1e6 * float(np.median(each)),
        "us_low": 1e6 * float(np.min(each)),
        "us_high": 1e6 * float(np.max(each)),
        "floor_us": 1e6 * built.program.moved / bandwidth,
        "launches": built.launches,
        "compile_s": built.seconds,
    }


_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (?:\(.*?\)|\S+) ([\w\-]+)\(")


def count_launches(text: str) -> int:
    """Counts the kernels in the body of the outermost loop of a compiled program."""
    blocks = re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \()", text)
    named = {block.lstrip("%").split(" ", 1)[0]: block for block in blocks}
    entry = next((block for block in blocks if block.startswith("ENTRY")), "")

    def kernels(block: str) -> int:
        total = 0
        for line in block.splitlines()[1:]:
            found = _INSTRUCTION.match(line)
            if found and found[1] == "while":
                inner = re.search(r"body=%?([\w.\-]+)", line)
                total += kernels(named.get(inner[1], "")) if inner else 0
            elif found:
                total += found[1] not in _FREE
        return total

    return kernels(entry)


class Loop:
    """A built program with its arrays: each call continues where the last one ended."""

    def __init__(self, built: Built, inputs: Any, carry: Any) -> None:
        self._run, self._inputs, self._carry = built.run, inputs, carry
        self.iterations = built.program.iterations

    def __call__(self) -> Any:
        """Runs all iterations without waiting for the result."""
        self._carry = self._run(self._inputs, self._carry)
        return self._carry
