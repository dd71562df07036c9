"""Times a step of every method, in turn, relative to that of a fixed weight."""

from collections.abc import Callable
from typing import Any

from rich.progress import Progress

from kdlab.experiment.timing import time_interleaved
from kdlab.regret.arms import ARMS, name_fixed
from kdlab.regret.objective import Batch
from kdlab.regret.situation import SITUATIONS
from kdlab.regret.steps import EVALUATION_STEPS
from kdlab.regret.training import REFERENCE, Laboratory, draw, make_knobs

ROUNDS = 20


def time_steps(laboratory: Laboratory, progress: Progress) -> dict[str, float]:
    """Times eight steps with one look at the validation set, where a method looks.

    Args:
        laboratory: Makes the compiled steps.
        progress: Where progress is shown.

    Returns:
        By arm, the time of a step relative to that of a fixed weight.
    """
    fixed = name_fixed(0.5)
    arms = {arm.program: name for name, arm in reversed(ARMS.items())}
    names = [fixed, *(name for name in arms.values() if ARMS[name].program != "fixed")]
    # The timer relates all to what it knows as `kd`.
    calls = {"kd" if n == fixed else n: _make_call(laboratory, n) for n in names}
    bar = progress.add_task("step times", total=ROUNDS)
    times = time_interleaved(calls, ROUNDS, lambda: progress.advance(bar))
    return {name: times["kd" if name == fixed else name]["relative"] for name in names}


def _make_call(laboratory: Laboratory, name: str) -> Callable[[], Any]:
    situation = SITUATIONS["good teacher"]
    task, teacher = laboratory.task(situation.task), laboratory.teacher(situation)
    examples = draw(task, situation, 0)
    program = laboratory.program(situation, ARMS[name])[1]
    knobs = make_knobs(task, situation, ARMS[name], 100, teacher, examples)
    params = laboratory.initial(situation.task, 0)
    state = program.init(knobs, params)
    rows = examples.rows[: task.student_training.batch_size]
    inputs, labels = task.train.inputs[rows], examples.labels[rows]
    batch = Batch(inputs, labels, teacher.logits[rows], teacher.features[rows])
    validation = examples.validation
    reference = Batch(validation.inputs[:REFERENCE], validation.labels[:REFERENCE])

    def call() -> Any:
        out: Any = None
        for count in range(EVALUATION_STEPS):
            step = program.pick_step(count)
            out = step(knobs, params, state, batch, reference)
        if program.evaluate is not None:
            out = program.evaluate(params, state, validation)
        return out

    return call
