"""A comparison: one teacher, several methods, several seeds, a table, figures."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from rich.console import Console
from rich.progress import Progress

from examples.distill import checkpoint, plot, run_record, table, timing
from examples.distill.config import Config
from examples.distill.data import Dataset, batches, load, num_batches
from examples.distill.kd_losses import Pupil
from examples.distill.methods import Plan, fixed, optimizer
from examples.distill.problem import Network, Split
from examples.distill.progress import progress_bars, show
from examples.distill.step import (
    Step,
    TrainState,
    initial_state,
    make_step,
    on_device,
)
from examples.distill.students import (
    Students,
    Teacher,
    make_model,
    make_problem,
    unfinished,
)
from examples.distill.train import Run, fit

TEACHER_BATCH, TEACHER_RATE = 64, 0.05


def run(config: Config, console: Console) -> None:
    """Runs what is missing of an experiment, then writes table and figures.

    Args:
        config: The settings.
        console: Where progress and the table are shown.

    Raises:
        ValueError: If the directory holds runs with other settings.
        FileNotFoundError: If the data set is not there; the message says what to do.
    """
    dataset = load(config.dataset, data_dir=config.data_dir)
    config.claim_directory()
    record = run_record.attempt(config.directory, sys.argv)
    with record, progress_bars(console) as progress:
        students = Students(config, train_teacher(config, dataset, progress))
        if not any(unfinished(config).values()):
            console.print(f"All runs of {config.directory} are done.")
        steps = train_students(students, progress)
        if config.timing_rounds:
            _time_steps(students, steps, progress)
    table.write(config)
    console.print(table.render(config))
    for path in plot.figures(config):
        console.print(f"Figure: {path}", highlight=False)


def train_students(
    students: Students, progress: Progress, *, diagnose: bool = True
) -> dict[str, Step]:
    """Trains those without a result; returns the compiled steps by method."""
    config, problem = students.config, students.problem
    todo = unfinished(config)
    total = sum(len(seeds) for seeds in todo.values())
    bar = progress.add_task("students", total=total, visible=total > 0)
    steps: dict[str, Step] = {}
    for method, seeds in todo.items():
        plan = students.plan(method)
        steps[method] = make_step(problem, plan)
        for seed in seeds:
            job = students.run(method, seed, diagnose=diagnose)
            state = students.state(plan, seed)
            start = partial(fit, job, problem, steps[method], state)
            _show(start, job, f"{config.loss}, {method}, seed {seed}", progress)
            progress.advance(bar)
    progress.remove_task(bar)
    return steps


def train_teacher(config: Config, dataset: Dataset, progress: Progress) -> Teacher:
    """Trains the teacher on all labels, or takes it from the cache.

    The cache is keyed by what decides its training, so that experiments share it.

    Raises:
        FloatingPointError: If the teacher diverged.
    """
    decisive = ("dataset", "teacher", "teacher_epochs", "augment", "momentum")
    settings = {key: getattr(config, key) for key in (*decisive, "weight_decay")}
    settings |= {"batch_size": TEACHER_BATCH, "learning_rate": TEACHER_RATE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    job = Run(
        directory=config.runs / "teachers" / f"{config.teacher}-{digest[:12]}",
        train=Split(dataset.train_images, dataset.train_labels),
        test=Split(dataset.test_images, dataset.test_labels),
        epochs=config.teacher_epochs,
        batch_size=TEACHER_BATCH,
        checkpoint_seconds=config.checkpoint_seconds,
    )
    steps = job.epochs * num_batches(len(job.train.labels), job.batch_size)
    schedule = optax.cosine_decay_schedule(TEACHER_RATE, steps)
    plain = dataclasses.replace(config, optimizer="sgd", nesterov=False, clip=None)
    tx = optax.chain(optimizer(plain, schedule))
    plan = Plan(tx, weights=fixed(1.0))
    pupil = Network.of(Pupil(make_model(config.teacher, dataset, nnx.Rngs(0))))
    problem = make_problem(
        config, dataset, pupil, config.kd_loss, teacher=None, steps=steps
    )
    state = initial_state(pupil, plan, seed=0)
    if not (job.directory / "result.json").exists():
        # A step uses the state up that it is given.
        copied = jax.tree.map(jnp.copy, state)
        start = partial(fit, job, problem, make_step(problem, plan), copied)
        _show(start, job, f"teacher {config.teacher}", progress)
        (job.directory / "settings.json").write_text(json.dumps(settings, indent=2))
    result = (job.directory / "result.json").read_text()
    if "diverged" in json.loads(result):
        raise FloatingPointError(
            f"The teacher of {job.directory} diverged: choose another --teacher."
        )
    with checkpoint.Saver(job.directory / "checkpoints") as saver:
        state, _ = saver.restore(state)
    (config.directory / "teacher.json").write_text(result)
    return Teacher(problem.network(state), dataset)


def _time_steps(students: Students, steps: dict[str, Step], progress: Progress) -> None:
    """Times the steps of all methods in turn, unless that was done."""
    config, problem = students.config, students.problem
    path = config.directory / "step_time.json"
    if path.exists() and set(config.methods) <= set(json.loads(path.read_text())):
        return
    data = on_device(students.data(0))
    batch = next(batches(len(data.labels), config.batch_size, seed=0))
    states: dict[str, TrainState] = {}

    def stepper(method: str, step: Step) -> Callable[[], object]:
        def once() -> object:
            states[method], metrics = step(
                states[method], data, problem.teacher, *batch
            )
            return states[method], metrics

        return once

    calls = {}
    for method in config.methods:
        plan = students.plan(method)
        states[method] = students.state(plan, 0)
        calls[method] = stepper(method, steps.get(method) or make_step(problem, plan))
    bar = progress.add_task("step times", total=config.timing_rounds)
    times = timing.interleaved(
        calls, config.timing_rounds, lambda: progress.advance(bar)
    )
    path.write_text(json.dumps(times, indent=2) + "\n")


def _show(start: Callable, job: Run, title: str, progress: Progress) -> None:
    """Runs a training to its end under a progress bar."""
    steps = num_batches(len(job.train.labels), job.batch_size)
    show(
        start,
        progress,
        title=title,
        epochs=job.epochs,
        steps=steps,
        images=job.batch_size,
    )
