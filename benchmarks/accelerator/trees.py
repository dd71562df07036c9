"""Times one update of a tree by kdopt, Optax and TorchJD over its bandwidth floor."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import kdopt
from benchmarks._measure import seconds
from benchmarks._trees import SHAPES
from benchmarks.accelerator import ceilings, torch_peer
from benchmarks.accelerator._arrays import Shapes, noise, size_of, struct
from benchmarks.accelerator._clock import (
    Budget,
    Built,
    Loop,
    Program,
    Results,
    Row,
    build_all,
    timing,
    untimed,
)
from benchmarks.compile_time import KINDS

ROUNDS = 5

TOGETHER = 3
"""Number of cases whose programs are compiled concurrently."""

TREES = {
    "tiny": lambda: [(3, 3, 8, 16), (16,), (40, 24), (24,)],
    "resnet50": SHAPES["resnet50"],
    "deit_s": SHAPES["deit_small"],
    "100M, 4 leaves": lambda: [(5_000, 5_000)] * 4,
    "1B, 8 leaves": lambda: [(11_180, 11_180)] * 8,
    "1000 leaves": lambda: [KINDS[n % len(KINDS)] for n in range(1_000)],
}
"""Shapes by name: 161 leaves, 150, few, few, and a thousand of 16 to 4,096 numbers."""


class Case(NamedTuple):
    """A tree, a number of losses, a dtype, and the programs to time."""

    tree: str
    k: int
    dtype: str
    names: tuple[str, ...]


PASSES = ("gram", "combine")
BALANCERS = ("min_norm", "dto_kd", "upgrad")
OPTIMIZERS = ("sgd", "dot + apply", "adam", "dot_adam + apply")
ALL = (*PASSES, *BALANCERS, *OPTIMIZERS)

CASES = (
    Case("100M, 4 leaves", 2, "float32", ALL),
    Case("resnet50", 2, "float32", ALL),
    Case("100M, 4 leaves", 4, "float32", (*PASSES, *BALANCERS)),
    Case("100M, 4 leaves", 8, "float32", (*PASSES, *BALANCERS)),
    Case("100M, 4 leaves", 2, "bfloat16", ALL),
    Case("1B, 8 leaves", 2, "float32", (*PASSES, "min_norm", "sgd", "dot + apply")),
    Case("100M, 4 leaves", 8, "bfloat16", (*PASSES, "upgrad")),
    Case("resnet50", 4, "float32", (*PASSES, "min_norm", "upgrad")),
    Case("deit_s", 2, "float32", (*PASSES, "min_norm", *OPTIMIZERS)),
    Case("1B, 8 leaves", 2, "bfloat16", (*PASSES, "min_norm", "sgd", "dot + apply")),
    Case("1000 leaves", 2, "float32", (*PASSES, "sgd", "dot + apply")),
    Case("resnet50", 2, "bfloat16", (*PASSES, "sgd", "dot + apply")),
    Case("1B, 8 leaves", 4, "float32", (*PASSES, "min_norm")),
    Case("1000 leaves", 4, "float32", PASSES),
    Case("deit_s", 8, "bfloat16", PASSES),
    Case("resnet50", 8, "float32", PASSES),
    Case("1000 leaves", 8, "float32", PASSES),
)
"""The most informative first: cases beyond the budget are listed, not timed."""

TINY = (
    Case("tiny", 2, "float32", (*PASSES, "dto_kd", "sgd", "dot + apply")),
    Case("tiny", 3, "bfloat16", ("gram",)),
)


def program(name: str, shapes: Shapes, k: int, dtype: str) -> Program:
    """Makes a program on K gradients of these shapes and K values.

    ``sgd`` and ``adam`` are Optax's, on one gradient; they and both forms of DOT scale
    by the learning rate and add the update to the parameters.
    """
    tree = [struct(shape, jnp.dtype(dtype)) for shape in shapes]
    make = functools.partial(Program, name, inputs=((tree,) * k, struct((k,))))
    size = size_of(tree)
    if name == "gram":
        carry = struct((k, k))
        return make(lambda x, _: kdopt.gram(x[0]), carry=carry, moved=k * size)
    if name == "combine":
        return make(lambda x, _: kdopt.combine(*x), carry=tree, moved=(k + 1) * size)
    if name in BALANCERS:
        tx = getattr(kdopt, name)(num_losses=k)

        def balance(inputs: Any, carry: Any) -> Any:
            grads, values = inputs
            return tx.update(grads, carry[1], values=1 + values**2)

        carry = tree, jax.eval_shape(tx.init, tree)
        return make(balance, carry=carry, moved=(2 * k + 1) * size)
    down = optax.scale_by_learning_rate(1e-3)
    tx, trees = {
        "sgd": (optax.sgd(1e-3, momentum=0.9), 5),
        "adam": (optax.adam(1e-3), 7),
        "dot + apply": (optax.chain(kdopt.dot(), down), 8),
        "dot_adam + apply": (kdopt.dot_adam(1e-3), 10),
    }[name]

    def apply(inputs: Any, carry: Any) -> Any:
        (grads, _), (params, state) = inputs, carry
        feed = grads if name.startswith("dot") else grads[0]
        updates, state = tx.update(feed, state, params)
        return optax.apply_updates(params, updates), state

    carry = tree, jax.eval_shape(tx.init, tree)
    return make(apply, carry=carry, moved=trees * size)


def programs(cases: Sequence[Case]) -> list[Program]:
    """Makes all programs, with unique names."""
    out = []
    for case in cases:
        shapes = TREES[case.tree]()
        iterations = 5 if case.tree.startswith("1B") else 20
        for name in case.names:
            made = program(name, shapes, case.k, case.dtype)
            out.append(made._replace(name=_key(case, name), iterations=iterations))
    return out


def measure(tiny: bool, budget: Budget, done: Results) -> Iterator[Row]:
    """Yields one row for each case and program, and those of TorchJD."""
    cases = TINY if tiny else CASES
    for start in range(0, len(cases), TOGETHER):
        # Do not compile while programs are timed: the compiler runs kernels on the
        # device.
        group = cases[start : start + TOGETHER]
        built = build_all(programs(group), budget.left())
        for case in group:
            yield from _time(case, built, budget, done)
    peers = (
        [("tiny", 2)]
        if tiny
        else [("resnet50", 2), ("deit_s", 2), ("100M, 4 leaves", 2)]
    )
    for tree, k in peers:
        yield from torch_peer.measure(tree, TREES[tree](), k, budget.left())


def show(rows: list[Row]) -> str:
    """Formats one line per tree: microseconds and multiples of the floor."""
    cells: dict[tuple, list[str]] = {}
    for row in rows:
        key = f"{row['tree']} K={row['k']} {row.get('dtype', '')}"
        text = row.get("error") or f"{row['us']:.0f}" + (
            f" ({row['over_floor']:.2f}x, {row['launches']})"
            if "launches" in row
            else ""
        )
        cells.setdefault(key, []).append(f"{row['program']} {text}")
    title = "trees: us (times the floor of its bytes, kernels)"
    return "\n".join(
        [title, *(f"  {key}: " + "; ".join(c) for key, c in cells.items())]
    )


def _key(case: Case, name: str) -> str:
    return f"{case.tree}, K={case.k}, {case.dtype}, {name}"


def _time(
    case: Case, built: dict[str, Built], budget: Budget, done: Results
) -> Iterator[Row]:
    own = {name: built[_key(case, name)] for name in case.names}
    label = {"tree": case.tree, "k": case.k, "dtype": case.dtype}
    errors = untimed(own, budget)
    for name, error in errors.items():
        yield {**label, "program": name, "error": error}
    ready = {name: one for name, one in own.items() if name not in errors}
    if not ready:
        return
    inputs = noise(next(iter(ready.values())).program.inputs)
    calls = {n: Loop(one, inputs, _start(one.program)) for n, one in ready.items()}
    times = seconds(calls, ROUNDS)
    for name, one in ready.items():
        found = timing(one, times[name], ceilings.bandwidth(done))
        launches = 1e6 * one.launches * ceilings.launch(done)
        yield {
            **label,
            "program": name,
            **found,
            "over_floor": found["us"] / found["floor_us"],
            "over_floor_and_launches": found["us"] / (found["floor_us"] + launches),
        }


def _start(program: Program) -> Any:
    """Makes noise for parameters and results, zeros for the state of a method."""
    if isinstance(program.carry, tuple):
        tree, state = program.carry
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
        return noise(tree, 1), zeros
    return noise(program.carry, 1)
