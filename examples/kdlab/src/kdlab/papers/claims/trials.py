"""Trains and measures the students by which the claims are judged.

All arms of a rate except DTO-KD share one program, which is compiled once: momentum in
two streams, whose hyperparameters are in the state of the optimiser.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from kdlab.data import num_batches
from kdlab.experiment.make import load_dataset
from kdlab.experiment.progress import show_run
from kdlab.experiment.students import Students
from kdlab.experiment.teachers import get_teacher
from kdlab.minima import measure, restore
from kdlab.runs import files
from kdlab.runs.claim import claim, claim_inputs
from kdlab.runs.plot import History, read_history
from kdlab.settings.config import Config, configure
from kdlab.settings.parts import Training
from kdlab.train.fit import fit
from kdlab.train.methods import ALL_METHODS, Plan, make_numbers
from kdlab.train.schedules import make_schedule

TASK = 0.1  # weight of the task loss; distillation has 0.9, as in the papers
DELTAS = (-0.075, -0.04, 0.04, 0.075)
ALPHAS = (0.25, 0.5, 0.9)
SHORTER = 0.8  # fraction of the epochs: DTO-KD reports 240 instead of 300

PLAIN: dict[str, Any] = {"weights": (TASK, 1 - TASK), "delta": 0.0}
"""Default hyperparameters of the arms."""


class Arm(NamedTuple):
    """A method with its hyperparameters.

    Attributes:
        method: Name of the method.
        numbers: Its hyperparameters.
        rate: Factor of the learning rate.
    """

    method: str = "momenta"
    numbers: Mapping[str, Any] = PLAIN
    rate: float = 1.0


def arm_name(delta: float) -> str:
    """Returns the name of the DOT arm with a given Delta."""
    return f"dot{delta:+g}"


def _make_arm(task: float = TASK, **others: Any) -> Arm:
    return Arm(numbers=PLAIN | {"weights": (task, 1 - task)} | others)


MAIN: dict[str, Arm] = {
    "labels_only": _make_arm(1.0),
    "kd": _make_arm(),
    arm_name(DELTAS[0]): _make_arm(delta=DELTAS[0]),
    arm_name(DELTAS[-1]): _make_arm(delta=DELTAS[-1]),
    "gain_matched": _make_arm(matched=DELTAS[-1]),
    "dto_kd": Arm("dto_kd"),
}
SWEEPS: dict[str, Arm] = {
    **{arm_name(d): _make_arm(delta=d) for d in DELTAS[1:-1]},
    **{f"kd-task{a:g}": _make_arm(a) for a in ALPHAS},
}
MEASURED = ("labels_only", "kd", arm_name(DELTAS[-1]), "gain_matched", "dto_kd")


class Setting(NamedTuple):
    """A data setting and its arms.

    Attributes:
        noise: Fraction of the labels that is replaced at random.
        epochs: Fraction of the epochs.
        arms: Arms to train, by name.
        measured: Arms whose minima are measured.
    """

    noise: float
    epochs: float
    arms: dict[str, Arm]
    measured: tuple[str, ...]


SHORT = {"dto_kd": MAIN["dto_kd"]}
SETTINGS = {
    "clean": Setting(0.0, 1.0, MAIN | SWEEPS, MEASURED),
    "noisy": Setting(0.4, 1.0, MAIN, MEASURED),
    "clean-short": Setting(0.0, SHORTER, SHORT, ()),
    "noisy-short": Setting(0.4, SHORTER, SHORT, ()),
}


class Trial(NamedTuple):
    """Results of a setting.

    Attributes:
        experiment: Its teacher, data and students.
        plans: Plan of each arm, for the structure of the checkpoints.
        results: Results of each arm and seed.
        histories: Metrics of each arm, for the seeds that did not diverge.
        measures: Measures of each arm and seed; empty for seeds that diverged.
    """

    experiment: restore.Experiment
    plans: dict[str, Plan]
    results: dict[str, list[dict[str, float]]]
    histories: dict[str, History]
    measures: dict[str, list[measure.Measures]]

    def over_epochs(self, arm: str, key: str) -> np.ndarray:
        """Returns a metric, ``[seeds, epochs]``; NaN for seeds that diverged."""
        done = [files.DIVERGED not in result for result in self.results[arm]]
        out = np.full((len(done), self.experiment.config.training.epochs), np.nan)
        if any(done):
            out[done] = self.histories[arm][key]
        return out

    def mean(self, arm: str, key: str) -> np.ndarray:
        """Returns the mean of a metric over the epochs, ``[seeds]``."""
        return self.over_epochs(arm, key).mean(1)

    def last(self, arm: str, key: str) -> np.ndarray:
        """Returns a metric after the last epoch, ``[seeds]``."""
        return self.over_epochs(arm, key)[:, -1]

    def result(self, arm: str, key: str) -> np.ndarray:
        """Returns a number of the results, ``[seeds]``."""
        return np.array([result.get(key, np.nan) for result in self.results[arm]])


def run(
    base: Config, settings: dict[str, Setting], progress: Progress, grid: measure.Grid
) -> dict[str, Trial]:
    """Trains and measures missing students.

    Args:
        base: Settings that are shared; each setting adds a suffix to the name.
        settings: Settings by suffix.
        progress: Progress display.
        grid: Grid of the landscapes of seed 0; those of other seeds have no plane.

    Returns:
        Results by setting.
    """
    return {
        suffix: _run_one(base, suffix, setting, progress, grid)
        for suffix, setting in settings.items()
    }


def _run_one(
    base: Config, suffix: str, setting: Setting, progress: Progress, grid: measure.Grid
) -> Trial:
    config = configure(
        base,
        name=f"{base.name}-{suffix}",
        noise=setting.noise,
        epochs=max(1, round(setting.epochs * base.training.epochs)),
    )
    claim(config)
    dataset = load_dataset(config.data)
    claim_inputs(config, data=dataset.fingerprint)
    teacher = get_teacher(config, dataset, progress)
    students = Students(config, teacher)
    experiment = restore.Experiment(config, dataset, teacher, students)
    count = config.data.labels or len(dataset.train_labels)
    steps = num_batches(count, config.training.batch_size)
    plans = {
        name: _make_plan(config.training, arm, steps)
        for name, arm in setting.arms.items()
    }
    bar = progress.add_task(suffix, total=len(plans) * config.seeds)
    compiled: dict[tuple[str, float], Callable] = {}
    for arm, plan in plans.items():
        program = setting.arms[arm].method, setting.arms[arm].rate
        for seed in range(config.seeds):
            _train(students, suffix, arm, plan, seed, compiled, program, progress)
            progress.advance(bar)
    measures = {
        arm: list(_measured(experiment, plans[arm], arm, grid, progress))
        for arm in setting.measured
    }
    progress.remove_task(bar)
    results = {
        arm: [_result(config, arm, seed) for seed in range(config.seeds)]
        for arm in plans
    }
    histories = {arm: read_history(config.directory / arm) for arm in plans}
    return Trial(experiment, plans, results, histories, measures)


def _make_plan(training: Training, arm: Arm, steps_per_epoch: int) -> Plan:
    rate = arm.rate * training.learning_rate
    training = dataclasses.replace(training, learning_rate=rate)
    schedule = make_schedule(training, steps_per_epoch)
    return ALL_METHODS[arm.method](make_numbers(training, **arm.numbers), schedule)


def _result(config: Config, arm: str, seed: int) -> dict[str, float]:
    return files.read_result(files.seed_folder(config.directory, arm, seed))


def _train(
    students: Students,
    suffix: str,
    arm: str,
    plan: Plan,
    seed: int,
    compiled: dict,
    program: tuple[str, float],
    progress: Progress,
) -> None:
    job = students.run(arm, seed)
    if files.has_result(job.directory):
        return
    if program not in compiled:
        compiled[program] = students.step(plan)
    state = students.state(plan, seed)
    start = partial(fit, job, students.problem, compiled[program], state)
    show_run(start, job, f"{suffix}, {arm}, seed {seed}", progress)


def _measured(
    experiment: restore.Experiment,
    plan: Plan,
    arm: str,
    grid: measure.Grid,
    progress: Progress,
) -> Iterator[measure.Measures]:
    seeds = range(experiment.config.seeds)
    for seed in progress.track(seeds, description=f"minima of {arm}"):
        if files.DIVERGED in _result(experiment.config, arm, seed):
            yield {}
            continue
        fine = grid if seed == 0 else grid._replace(plane=0)
        yield restore.load_or_measure(experiment, plan, arm, seed, fine)
