"""Times the steps of several methods in turn, so that all see the same noise."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np


def time_interleaved(
    steps: Mapping[str, Callable[[], object]], rounds: int, advance: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Times one step of each method in turn, over several rounds.

    Args:
        steps: For each method, a function that runs one step and returns its arrays.
        rounds: Number of timed steps of each method, after one warm-up step.
        advance: Called after each round.

    Returns:
        For each method the median ``milliseconds`` of a step and, if ``kd`` is among
        them, ``relative``: the median over rounds of its time over that of ``kd``.
    """

    def seconds(step: Callable[[], object]) -> float:
        began = time.perf_counter()
        jax.block_until_ready(step())
        return time.perf_counter() - began

    for step in steps.values():
        seconds(step)
    rows = []
    for _ in range(rounds):
        rows.append([seconds(step) for step in steps.values()])
        advance()
    columns = dict(zip(steps, np.array(rows).T, strict=True))
    out = {}
    for name, column in columns.items():
        out[name] = {"milliseconds": 1e3 * float(np.median(column))}
        if "kd" in columns:
            out[name]["relative"] = float(np.median(column / columns["kd"]))
    return out
