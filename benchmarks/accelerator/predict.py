"""Predicts times from the kernels that the compiler makes for an H100, without one.

``JAX_PLATFORMS=cpu python -m benchmarks.accelerator.predict`` needs the packages that
``tests/test_aot.py`` names. ``--show trees`` or ``variants`` selects the programs, and
``--only`` those whose names contain a text.
"""

import argparse
import time
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.accelerator import trees, variants
from benchmarks.accelerator._clock import Program, count_launches, repeat
from tests._aot import compile_for, mesh

MACHINE = "H100:1x1x1"
BANDWIDTH, LAUNCH = 3.0e12, 2.5e-6
"""Bytes per second of a copy, counting reads and writes; seconds per launch."""


def programs(which: str) -> Iterator[Program]:
    """Yields the programs that the benchmark times."""
    if which == "trees":
        yield from trees.programs(trees.CASES)
    else:
        for trial in variants.trials(tiny=False):
            if trial.name == "one kernel":  # Pallas needs the actual device
                continue
            yield trial.program._replace(name=f"{trial.group}, {trial.name}")


def predict(program: Program) -> str:
    """Formats a row: bytes, kernels, microseconds of each and of both."""
    everywhere = NamedSharding(mesh(MACHINE), PartitionSpec())
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        (program.inputs, program.carry),
    )
    began = time.process_time()
    step = repeat(program.step, program.iterations)
    compiled = compile_for(MACHINE, step, *args, donate_argnums=1)
    took = time.process_time() - began
    kernels = count_launches(compiled.as_text())
    moving, launching = program.moved / BANDWIDTH, kernels * LAUNCH
    cells = (
        program.name,
        f"{program.moved / 1e9:.3g}",
        kernels,
        *(f"{1e6 * t:.0f}" for t in (moving, launching, moving + launching)),
        f"{took:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Prints one row for each program once it is compiled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.predict")
    parser.add_argument("--show", choices=("trees", "variants"), default="trees")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(
        "| program | GB | kernels | bytes, us | launches, us | sum, us | compile, s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for program in programs(options.show):
        if options.only not in program.name:
            continue
        try:
            print(predict(program), flush=True)
        except Exception as fault:
            reason = str(fault).splitlines()[0][:100]
            print(f"| {program.name} | {type(fault).__name__}: {reason} |", flush=True)


if __name__ == "__main__":
    main()
