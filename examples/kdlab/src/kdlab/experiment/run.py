"""Runs a comparison: one teacher, several methods and seeds, a table and figures."""

import contextlib
import sys
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.progress import Progress

from kdlab.basics import display
from kdlab.data import Dataset, Streamed, open_dataset
from kdlab.data.feed import Feed
from kdlab.devices import mesh
from kdlab.experiment import timing
from kdlab.experiment.progress import progress_bars, show_run
from kdlab.experiment.students import Students, find_unfinished
from kdlab.experiment.teachers import export_student, get_teacher
from kdlab.runs import files, logs, plot, table
from kdlab.runs import record as run_record
from kdlab.runs.claim import claim_for_run
from kdlab.settings.config import Config
from kdlab.settings.parts import Data, Execution
from kdlab.train.fit import fit
from kdlab.train.state import TrainState
from kdlab.train.step import Step


def run(config: Config, console: Console) -> None:
    """Runs all missing trainings of an experiment, then writes table and figures.

    Args:
        config: The settings.
        console: Terminal for progress and the table.

    Raises:
        ValueError: If the directory holds runs with other settings.
        FileNotFoundError: If the data set is missing; the message says what to do.
        ModuleNotFoundError: If the package of a requested logger is missing.
    """
    dataset = prepare(config.data, config.execution)
    with contextlib.ExitStack() as stack:
        if mesh.is_first():
            stack.enter_context(claim_for_run(config, dataset.fingerprint))
        mesh.wait_for_all("the directory is there")
        stack.enter_context(run_record.record_start(config.directory, sys.argv[1:]))
        progress = stack.enter_context(progress_bars(console))
        students = Students(config, get_teacher(config, dataset, progress))
        if not any(find_unfinished(config).values()):
            display.print_line(console, f"All runs of {config.directory} are done.")
        steps = train_students(students, progress)
        if config.execution.timing_rounds:
            _time_steps(students, steps, progress)
    if config.networks.teacher is None:
        display.print_path(console, export_student(students), "Weights")
    if not mesh.is_first():
        return
    table.write(config)
    table.show(config, console)
    for path in plot.draw_figures(config):
        display.print_path(console, path, "Figure")


def prepare(data: Data, execution: Execution) -> Dataset | Streamed:
    """Checks that the requested loggers are installed, and opens the data set.

    Raises:
        FileNotFoundError: If the data set is missing; the message says what to do.
        ModuleNotFoundError: If the package of a requested logger is missing.
    """
    logs.check_installed(tensorboard=execution.tensorboard, wandb=execution.wandb)
    return open_dataset(
        data.dataset, data_dir=data.data_dir, image_size=data.image_size
    )


def train_students(
    students: Students, progress: Progress, *, diagnose: bool = True
) -> dict[str, Step]:
    """Trains the students without a result; returns the compiled steps by method."""
    config, problem = students.config, students.problem
    todo = find_unfinished(config)
    total = sum(len(seeds) for seeds in todo.values())
    bar = progress.add_task("students", total=total, visible=total > 0)
    steps: dict[str, Step] = {}
    for method, seeds in todo.items():
        plan = students.plan(method)
        steps[method] = students.step(plan)
        for seed in seeds:
            job = students.run(method, seed, diagnose=diagnose)
            state = students.state(plan, seed)
            start = partial(fit, job, problem, steps[method], state)
            show_run(
                start,
                job,
                f"{config.distillation.loss}, {method}, seed {seed}",
                progress,
            )
            progress.advance(bar)
    progress.remove_task(bar)
    return steps


def _time_steps(students: Students, steps: dict[str, Step], progress: Progress) -> None:
    """Times the steps of all methods in turn, unless that was done before."""
    config, problem = students.config, students.problem
    known = files.read_step_times(config.directory)
    if known and set(config.methods) <= set(known):
        return
    job = students.run(config.methods[0], 0)
    fed = next(Feed(job.train, problem.layout, config.training.batch_size).epoch(0, 0))
    teacher = job.cached_logits or problem.teacher
    states: dict[str, TrainState] = {}

    def stepper(method: str, step: Step) -> Callable[[], object]:
        def once() -> object:
            states[method], metrics = step(states[method], fed.data, teacher, *fed[1:])
            return states[method], metrics

        return once

    calls = {}
    for method in config.methods:
        plan = students.plan(method)
        states[method] = students.state(plan, 0)
        calls[method] = stepper(method, steps.get(method) or students.step(plan))
    bar = progress.add_task("step times", total=config.execution.timing_rounds)
    times = timing.time_interleaved(
        calls, config.execution.timing_rounds, lambda: progress.advance(bar)
    )
    if mesh.is_first():
        files.write_step_times(config.directory, times)
