"""Times a step of every method, in turn, relative to that of a fixed sum."""

from collections.abc import Callable
from typing import Any

import jax
from rich.progress import Progress

from kdlab.detection.experiment import Experiment
from kdlab.experiment.timing import time_interleaved

ROUNDS = 20
REFERENCE = "vkd"  # the fixed sum with the distance that DTO-KD balances


def time_steps(experiment: Experiment, progress: Progress) -> dict[str, float]:
    """Times steps on one batch; the tokens of the teacher are there already.

    Args:
        experiment: Makes the compiled steps.
        progress: Where progress is shown.

    Returns:
        By method, the time of a step relative to that of ``vkd``.
    """
    task, config = experiment.task, experiment.config
    host = next(task.batches(task.part(config.train_images), 0, 0))
    given = host, experiment.teacher()(host)
    batch, tokens = experiment.layout.divide(given)
    key = jax.random.key(0)

    def make_call(method: str) -> Callable[[], Any]:
        program, initial = experiment.program(method)
        state = program.init(experiment.layout.place(initial(0)))
        known = None if method == "labels_only" else tokens

        def call() -> Any:
            nonlocal state
            state, metrics = program.step(state, batch, known, key)
            return metrics

        return call

    methods = dict.fromkeys((REFERENCE, *config.methods))
    # The timer relates all to what it knows as `kd`.
    names = {method: "kd" if method == REFERENCE else method for method in methods}
    calls = {name: make_call(method) for method, name in names.items()}
    bar = progress.add_task("step times", total=ROUNDS)
    times = time_interleaved(calls, ROUNDS, lambda: progress.advance(bar))
    return {method: times[name]["relative"] for method, name in names.items()}
