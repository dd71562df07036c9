"""Checks and times prototypes next to what kdopt does today."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from benchmarks._measure import seconds
from benchmarks.accelerator import ceilings, prototypes
from benchmarks.accelerator._arrays import noise, size_of, struct
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
from benchmarks.accelerator._compare import relative
from benchmarks.accelerator.trees import TREES

ROUNDS = 5
TODAY = "today"

GRAMS: dict[str, Callable] = {
    TODAY: kdopt.gram,
    "products": prototypes.products,
    "stacked": prototypes.stacked,
    "one kernel": prototypes.one_kernel,
}

NO_GRAPHS = {"xla_gpu_enable_command_buffer": ""}
LOOPS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONDITIONAL,WHILE"
FLAGS: dict[str, dict[str, Any]] = {
    "no command buffers": NO_GRAPHS,
    "command buffers with loops": {"xla_gpu_enable_command_buffer": LOOPS},
}

SOLVERS: dict[str, Callable] = {
    "min_norm": kdopt.min_norm_weights,
    "upgrad": kdopt.upgrad_weights,
    "dto_kd": lambda gram: kdopt.dto_kd_weights(gram, jnp.ones(len(gram))),
}


class Trial(NamedTuple):
    """A program and the group in which it is compared with ``TODAY``."""

    group: str
    name: str
    program: Program


def trials(tiny: bool) -> list[Trial]:
    """Makes all trials, the most informative first."""
    if tiny:
        return [*_grams("tiny", 2, tuple(GRAMS)), *_solvers(3)]
    gpu = jax.default_backend() == "gpu"
    return [
        *_grams("resnet50", 2, tuple(GRAMS)),
        *(_flagged("resnet50", 2) if gpu else []),
        *(trial for k in (2, 3, 4, 8) for trial in _solvers(k)),
        *_grams("1000 leaves", 2, (TODAY, "stacked")),
        *_grams("resnet50", 4, (TODAY, "products")),
        *_grams("100M, 4 leaves", 8, (TODAY, "products", "one kernel")),
        *_grams("resnet50", 8, (TODAY, "products")),
    ]


def measure(tiny: bool, budget: Budget, done: Results) -> Iterator[Row]:
    """Yields one row for each trial, with its distance from today's result."""
    listed = trials(tiny)
    programs = [t.program._replace(name=f"{t.group}, {t.name}") for t in listed]
    built = build_all(programs, budget.left(keep=0.3))
    for group in dict.fromkeys(trial.group for trial in listed):
        own = {
            t.name: built[f"{t.group}, {t.name}"] for t in listed if t.group == group
        }
        yield from _time(group, own, budget, done)


def show(rows: list[Row]) -> str:
    """Formats one line per group."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        text = row.get("error") or f"{row['us']:.0f} us, {row['launches']} kernels"
        lines.setdefault(row["group"], []).append(f"{row['variant']}: {text}")
    title = "variants"
    return "\n".join(
        [title, *(f"  {key}: " + "; ".join(v) for key, v in lines.items())]
    )


def _grams(tree: str, k: int, names: tuple[str, ...]) -> Iterator[Trial]:
    for name in names:
        yield Trial(f"gram, {tree}, K={k}", name, _gram(tree, k, GRAMS[name]))


def _flagged(tree: str, k: int) -> Iterator[Trial]:
    for flag, options in FLAGS.items():
        program = _gram(tree, k, GRAMS[TODAY])._replace(options=options)
        yield Trial(f"gram, {tree}, K={k}", f"{TODAY}, {flag}", program)


def _gram(tree: str, k: int, fn: Callable) -> Program:
    if fn is prototypes.one_kernel and jax.default_backend() != "gpu":
        fn = functools.partial(fn, interpret=True)
    grads = ([struct(shape) for shape in TREES[tree]()],) * k
    return Program("", lambda g, _: fn(g), grads, struct((k, k)), size_of(grads))


def _solvers(k: int) -> Iterator[Trial]:
    for name, fn in SOLVERS.items():
        program = Program("", lambda g, _, fn=fn: fn(g), struct((k, k)), struct((k,)))
        yield Trial(f"weights, K={k}", name, program)


def _time(
    group: str, built: dict[str, Built], budget: Budget, done: Results
) -> Iterator[Row]:
    errors = untimed(built, budget)
    for name, error in errors.items():
        yield {"group": group, "variant": name, "error": error}
    ready = {name: one for name, one in built.items() if name not in errors}
    if not ready:
        return
    inputs = _inputs(next(iter(ready.values())).program)
    calls = {
        name: Loop(one, inputs, noise(one.program.carry)) for name, one in ready.items()
    }
    results = {name: np.asarray(call()) for name, call in calls.items()}
    times = seconds(calls, ROUNDS)
    for name, one in ready.items():
        yield {
            "group": group,
            "variant": name,
            **timing(one, times[name], ceilings.bandwidth(done)),
            "from_today": _distance(name, results),
        }


def _inputs(program: Program) -> Any:
    """Makes gradients of noise, or a Gram matrix of conflicting gradients."""
    if isinstance(program.inputs, tuple):
        return noise(program.inputs)
    k = program.inputs.shape[0]
    rows = np.random.default_rng(0).normal(size=(k, 64))
    rows -= 0.9 * rows.mean(axis=0)
    return jnp.asarray(rows @ rows.T, jnp.float32)


def _distance(name: str, results: dict[str, np.ndarray]) -> float | None:
    """Returns the distance from today's result, if there is one."""
    if TODAY not in results:
        return None
    return relative(results[name], results[TODAY])
