"""Times eight students in one program, by ``vmap``, and one after the other."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator._arrays import noise
from benchmarks.accelerator._clock import Budget, Results, Row
from benchmarks.accelerator.steps import Run
from benchmarks.accelerator.tasks import Task, convolutional

MODES = ("plain", "DOT", "shared")


def measure(tiny: bool, budget: Budget, done: Results) -> Iterator[Row]:
    """Yields one row for each mode: milliseconds of a step of all, both ways."""
    del done
    name, batch, side, count = ("mlp", 2, 8, 2) if tiny else ("resnet20", 128, 32, 8)
    dtype = jnp.float32 if tiny else jnp.bfloat16
    task = convolutional(name, batch, (side, side, 1), 10, dtype)
    modes = MODES[:1] if tiny else MODES
    pool = ThreadPoolExecutor(6)
    futures = {mode: pool.submit(_compile, task, mode, count) for mode in modes}
    wait(futures.values(), timeout=budget.left(keep=0.3))
    pool.shutdown(wait=False, cancel_futures=True)
    for mode, future in futures.items():
        row = {"students": f"{count} of {name}, {batch}", "mode": mode}
        if not future.done() or future.cancelled() or not budget.left():
            yield {**row, "error": "no time left"}
        elif fault := future.exception():
            yield {**row, "error": f"{type(fault).__name__}: {fault}"[:200]}
        else:
            yield row | _time(task, mode, count, *future.result())


def show(rows: list[Row]) -> str:
    """Formats one line per mode."""
    lines = ["students: ms of a step of all, together and one after the other"]
    for row in rows:
        text = row.get("error") or (
            f"{row['together_ms']:.2f} and {row['apart_ms']:.2f}, "
            f"{row['apart_over_together']:.2f}x "
            f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
        )
        lines.append(f"  {row['students']}, {row['mode']}: {text}")
    return "\n".join(lines)


def _compile(task: Task, mode: str, count: int) -> tuple[Callable, Callable]:
    step, init = task.modes.all()[mode]
    one = task.params, jax.eval_shape(init, task.params), task.rest, task.batch

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *x.shape), x.dtype)

    def compiled(fn: Callable, args: Any) -> Callable:
        return jax.jit(fn, donate_argnums=(0, 1, 2)).lower(*args).compile()

    return compiled(jax.vmap(step), jax.tree.map(stacked, one)), compiled(step, one)


def _time(
    task: Task, mode: str, count: int, together: Callable, apart: Callable
) -> Row:
    init = jax.jit(task.modes.all()[mode][1])
    params, rest, _ = task.arrays()
    batches = [noise(task.batch, seed) for seed in range(count)]
    starts = [jax.device_put((params, rest)) for _ in range(count)]
    moving = [(own[0], init(own[0]), own[1]) for own in starts]
    stack = jax.jit(lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees))
    all_at_once = Run(together, stack(*moving), stack(*batches))
    singles = [Run(apart, own, x) for own, x in zip(moving, batches, strict=True)]
    rows = []
    for turn in range(8):
        took = all_at_once(5), sum(run(5) for run in singles)
        if turn > 1:  # the first two warm up
            rows.append([seconds / 5 for seconds in took])
    at_once, one_by_one = np.array(rows).T
    share = one_by_one / at_once
    return {
        "together_ms": 1e3 * float(np.median(at_once)),
        "apart_ms": 1e3 * float(np.median(one_by_one)),
        "apart_over_together": float(np.median(share)),
        "ratio_low": float(np.min(share)),
        "ratio_high": float(np.max(share)),
    }
