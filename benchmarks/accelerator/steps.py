"""Times training steps in each mode, as multiples of a plain one."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks._measure import ratios
from benchmarks.accelerator._clock import Budget, Results, Row
from benchmarks.accelerator.tasks import TASKS, TINY, Task

PLAIN = "plain"
NAMES = (
    PLAIN,
    "exact, K = 2",
    "DOT",
    "shared",
    "amortised, next call",
    "exact, vmapped",
    "exact, every 4",
)
"""The modes, the most informative first."""

CYCLE = 4
"""Steps are timed in multiples of this, for the mode that balances every 4th step."""


LEAST = 50.0
"""Seconds per network, mostly for compilation."""


class Ready(NamedTuple):
    """A compiled step: ``run(params, state, rest, batch)`` donates the first three."""

    run: Callable[..., Any]
    seconds: float
    bytes: int


def measure(
    tiny: bool, budget: Budget, done: Results, tasks: Sequence[str] = ()
) -> Iterator[Row]:
    """Yields one row for each network and mode; ``tasks`` selects networks."""
    del done
    table = TINY if tiny else TASKS
    chosen = [name for name in table if any(t in name for t in tasks)] or list(table)
    for position, name in enumerate(chosen):
        # An equal share, but with too little time a network yields nothing.
        share = max(budget.left() / (len(chosen) - position), LEAST)
        if budget.left() < LEAST / 2:
            yield {"task": name, "mode": "all", "error": "no time left"}
            continue
        names = NAMES[:1] if tiny and name != "decoder" else NAMES
        yield from _network(name, table[name](), names, Budget(share))


def show(rows: list[Row]) -> str:
    """Formats one line per mode: milliseconds, times plain, gigabytes."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        text = row.get("error") or (
            f"{row['ms']:.2f} ms {row['ratio']:.2f}x [{row['ratio_low']:.2f}, "
            f"{row['ratio_high']:.2f}] {row['gb']:.1f} GB, {row['compile_s']:.0f} s"
        )
        lines.setdefault(row["task"], []).append(f"    {row['mode']}: {text}")
    title = "steps: time, times plain [least, most], memory, compilation"
    return "\n".join(
        [title, *("\n".join([f"  {task}", *own]) for task, own in lines.items())]
    )


def _network(
    name: str, task: Task, modes: Sequence[str], budget: Budget
) -> Iterator[Row]:
    ready, errors = _compile(task, modes, budget)
    for mode, error in errors.items():
        yield {"task": name, "mode": mode, "error": error}
    why = "no time left" if not budget.left() else errors.get(PLAIN, "")
    if why:
        yield from ({"task": name, "mode": m, "error": why} for m in ready)
        return
    times = _times(task, ready, budget)
    relative = ratios(times, PLAIN)
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    for mode, took in times.items():
        share = took / times[PLAIN]
        yield {
            "task": name,
            "mode": mode,
            "ms": 1e3 * float(np.median(took)),
            "per_second": task.items / float(np.median(took)),
            "ratio": relative[mode],
            "ratio_low": float(np.min(share)),
            "ratio_high": float(np.max(share)),
            "rounds": len(took),
            "gb": ready[mode].bytes / 1e9,
            "process_peak_gb": peak / 1e9,
            "compile_s": ready[mode].seconds,
        }


def _compile(
    task: Task, modes: Sequence[str], budget: Budget
) -> tuple[dict[str, Ready], dict[str, str]]:
    """Compiles plain first and alone: its kernel tuning is used by all others."""
    ways = task.modes.all()

    def one(mode: str) -> Ready:
        step, init = ways[mode]
        began = time.perf_counter()
        state = jax.eval_shape(init, task.params)
        jitted = jax.jit(step, donate_argnums=(0, 1, 2))
        compiled = jitted.lower(task.params, state, task.rest, task.batch).compile()
        took, memory = time.perf_counter() - began, compiled.memory_analysis()
        size = memory.argument_size_in_bytes + memory.output_size_in_bytes
        size += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        return Ready(compiled, took, size)

    pool = ThreadPoolExecutor(8)
    futures = {PLAIN: pool.submit(one, PLAIN)}
    wait(futures.values(), timeout=budget.left(keep=0.2))
    futures |= {mode: pool.submit(one, mode) for mode in modes if mode != PLAIN}
    wait(futures.values(), timeout=budget.left(keep=0.2))
    pool.shutdown(wait=False, cancel_futures=True)
    ready, errors = {}, {}
    for mode, future in futures.items():
        if not future.done() or future.cancelled():
            errors[mode] = "not compiled in time"
        elif fault := future.exception():
            errors[mode] = f"{type(fault).__name__}: {fault}"[:200]
        else:
            ready[mode] = future.result()
    return ready, errors


def _times(
    task: Task, ready: dict[str, Ready], budget: Budget
) -> dict[str, np.ndarray]:
    """Times steps in each round, the modes in turn, several steps per round."""
    params, rest, batch = task.arrays()
    ways, runs = task.modes.all(), {}
    for mode, one in ready.items():
        own = jax.device_put((params, rest))
        state = jax.jit(ways[mode][1])(own[0])
        runs[mode] = Run(one.run, (own[0], state, own[1]), batch)
        runs[mode](CYCLE)
    steps = CYCLE * max(1, math.ceil(0.05 / runs[PLAIN](CYCLE)))
    rows: list[list[float]] = []
    while len(rows) < 3 or (len(rows) < 10 and budget.left()):
        rows.append([run(steps) / steps for run in runs.values()])
    return dict(zip(runs, np.array(rows).T, strict=True))


class Run:
    """A step in use: parameters, state and ``rest`` are carried from call to call."""

    def __init__(self, step: Callable[..., Any], moving: Any, batch: Any) -> None:
        self._step, self._moving, self._batch = step, moving, batch

    def __call__(self, steps: int) -> float:
        """Runs a number of steps and returns the seconds."""
        began = time.perf_counter()
        for _ in range(steps):
            self._moving = self._step(*self._moving, self._batch)
        jax.block_until_ready(self._moving)
        return time.perf_counter() - began
