"""A comparison: one teacher, several methods, several seeds, a table, figures."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import optax
from flax import nnx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from examples.distill import checkpoint, models, plot, table, timing
from examples.distill.config import Config
from examples.distill.data import (
    Dataset,
    batches,
    corrupt_labels,
    load,
    num_batches,
    subset,
)
from examples.distill.methods import METHODS, Plan, fixed, sgd
from examples.distill.train import (
    Network,
    Problem,
    Run,
    Split,
    Step,
    TrainState,
    fit,
    initial_state,
    make_step,
    on_device,
)

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
    with _progress(console) as progress:
        teacher = train_teacher(config, dataset, progress)
        problem = _problem(config, dataset, config.student, teacher)
        todo = _unfinished(config)
        if not any(todo.values()):
            console.print(f"All runs of {config.directory} are done.")
        total = sum(len(seeds) for seeds in todo.values())
        bar = progress.add_task("students", total=total, visible=total > 0)
        steps: dict[str, Step] = {}
        for method, seeds in todo.items():
            plan = student_plan(config, dataset, method)
            steps[method] = make_step(problem, plan)
            for seed in seeds:
                state = initial_state(
                    _network(config.student, dataset, seed), plan, seed
                )
                job = _student_run(config, dataset, method, seed)
                epochs = fit(job, problem, steps[method], state)
                _show(epochs, config.epochs, f"{method}, seed {seed}", progress)
                progress.advance(bar)
        if config.timing_rounds:
            _time_steps(config, dataset, problem, steps, progress)
    table.write(config)
    console.print(table.render(config))
    for path in plot.figures(config):
        console.print(f"Figure: {path}", highlight=False)


def student_plan(config: Config, dataset: Dataset, method: str) -> Plan:
    """The method with its learning-rate schedule."""
    labels = len(dataset.train_labels) if config.labels is None else config.labels
    steps = config.epochs * num_batches(labels, config.batch_size)
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    return METHODS[method](config, schedule)


def student_data(config: Config, dataset: Dataset, seed: int) -> Split:
    """The images that the student sees and their noisy labels; both follow the seed."""
    few = dataset if config.labels is None else subset(dataset, config.labels, seed)
    labels = corrupt_labels(few.train_labels, config.noise, few.num_classes, seed)
    return Split(few.train_images, labels)


def train_teacher(config: Config, dataset: Dataset, progress: Progress) -> Network:
    """Trains the teacher on all labels, or takes it from the cache.

    The cache is keyed by what decides its training, so that experiments share it.
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
    plan = Plan(optax.chain(sgd(config, schedule)), weights=fixed(1.0))
    network = _network(config.teacher, dataset, seed=0)
    state = initial_state(network, plan, seed=0)
    if not (job.directory / "result.json").exists():
        problem = _problem(config, dataset, config.teacher, None)
        epochs = fit(job, problem, make_step(problem, plan), state)
        _show(epochs, job.epochs, f"teacher {config.teacher}", progress)
        (job.directory / "settings.json").write_text(json.dumps(settings, indent=2))
        state = initial_state(_network(config.teacher, dataset, 0), plan, seed=0)
    with checkpoint.Saver(job.directory / "checkpoints") as saver:
        state, _ = saver.restore(state)
    result = (job.directory / "result.json").read_text()
    (config.directory / "teacher.json").write_text(result)
    return Network(network.graphdef, state.params, state.rest)


def _time_steps(
    config: Config,
    dataset: Dataset,
    problem: Problem,
    steps: dict[str, Step],
    progress: Progress,
) -> None:
    """Times the steps of all methods in turn, unless that was done."""
    path = config.directory / "step_time.json"
    if path.exists() and set(config.methods) <= set(json.loads(path.read_text())):
        return
    data = on_device(student_data(config, dataset, 0))
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
        plan = student_plan(config, dataset, method)
        states[method] = initial_state(_network(config.student, dataset, 0), plan, 0)
        calls[method] = stepper(method, steps.get(method) or make_step(problem, plan))
    bar = progress.add_task("step times", total=config.timing_rounds)
    times = timing.interleaved(
        calls, config.timing_rounds, lambda: progress.advance(bar)
    )
    path.write_text(json.dumps(times, indent=2) + "\n")


def _unfinished(config: Config) -> dict[str, list[int]]:
    """By method, the seeds without a result."""
    return {
        method: [
            seed
            for seed in range(config.seeds)
            if not (_directory(config, method, seed) / "result.json").exists()
        ]
        for method in config.methods
    }


def _directory(config: Config, method: str, seed: int) -> Path:
    return config.directory / method / f"seed{seed}"


def _student_run(config: Config, dataset: Dataset, method: str, seed: int) -> Run:
    return Run(
        directory=_directory(config, method, seed),
        train=student_data(config, dataset, seed),
        test=Split(dataset.test_images, dataset.test_labels),
        epochs=config.epochs,
        batch_size=config.batch_size,
        checkpoint_seconds=config.checkpoint_seconds,
    )


def _network(name: str, dataset: Dataset, seed: int) -> Network:
    model = models.create(
        name,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        rngs=nnx.Rngs(seed),
    )
    return Network.of(model)


def _problem(
    config: Config, dataset: Dataset, name: str, teacher: Network | None
) -> Problem:
    return Problem(
        _network(name, dataset, seed=0).graphdef,
        teacher,
        mean=dataset.mean,
        std=dataset.std,
        augment=config.augment,
        temperature=config.temperature,
    )


def _show(
    epochs: Iterator[dict[str, float]], total: int, title: str, progress: Progress
) -> None:
    """Runs a training to its end under a progress bar."""
    bar = progress.add_task(title, total=total)
    for record in epochs:
        text = f"{title}: test {record['test/accuracy']:.1%}"
        progress.update(bar, completed=record["epoch"], description=text)
    progress.remove_task(bar)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
