"""Measures everything on the default device; ``--help`` lists the options.

``python -m benchmarks.accelerator`` runs from the root and needs only what kdopt and
the networks of kdlab need. Results are written after every row, so an interrupted run
keeps them. The exit status is 1 if a correctness check failed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before jax starts: PyTorch runs next to it and needs its own memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from benchmarks.accelerator import (
    ceilings,
    correctness,
    steps,
    students,
    trees,
    variants,
)
from benchmarks.accelerator._clock import Budget, Results, Row
from benchmarks.accelerator._machine import machine, slug

Measure = Callable[[bool, Budget, Results], Iterator[Row]]

PARTS: dict[str, tuple[float, Measure]] = {
    "ceilings": (25, ceilings.measure),
    "correctness": (110, correctness.measure),
    "trees": (95, trees.measure),
    "steps": (110, steps.measure),
    "students": (25, students.measure),
    "variants": (50, variants.measure),
}
"""Time limit of each part in seconds, including compilation, and its function.

Prototypes come last, so that one that breaks the device affects only its own part.
"""

SHOW = {
    "ceilings": ceilings.show,
    "correctness": correctness.show,
    "trees": trees.show,
    "steps": steps.show,
    "students": students.show,
    "variants": variants.show,
}


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; returns the number of checks that failed."""
    options = _parse(arguments)
    parts = list(options.parts)
    if {"trees", "variants"} & set(parts) and "ceilings" not in parts:
        parts = ["ceilings", *parts]  # the other parts are relative to them
    path = options.out or Path(f"benchmarks/results/accelerator-{slug()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    about, done, took = machine(), {}, {}
    for part in PARTS:
        if part not in parts:
            continue
        seconds, measure = PARTS[part]
        budget = Budget(options.budget or seconds)
        extra = {"tasks": options.tasks} if part == "steps" else {}
        rows = done.setdefault(part, [])
        began = time.perf_counter()
        try:
            for row in measure(options.tiny, budget, done, **extra):
                rows.append(row)
                path.write_text(json.dumps({"machine": about, **done}, indent=1))
        except Exception as fault:  # the other parts still run
            print(
                f"{part} ended early: {type(fault).__name__}: {fault}"[:500], flush=True
            )
            took.setdefault("broken", []).append(part)
        took[part] = round(time.perf_counter() - began, 1)
        document = {"machine": about, "seconds": took, **done}
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{part}: {len(rows)} rows in {took[part]} s", flush=True)
    print(f"\n{json.dumps(about)}\nseconds: {json.dumps(took)}")
    for part, rows in done.items():
        print("\n" + SHOW[part](rows))
    failed = correctness.failures(done.get("correctness", []))
    print(f"\nWritten: {path}. Failed checks: {len(failed)}.", flush=True)
    return len(failed) + len(took.get("broken", []))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--budget", type=float, help="seconds for each part")
    parser.add_argument("--tasks", nargs="+", default=[], help="networks of `steps`")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a trial")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    status = min(main(), 1)
    sys.stdout.flush()
    os._exit(status)  # do not wait for programs that are still being compiled
