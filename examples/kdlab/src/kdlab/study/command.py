"""``kdlab study``: finds out which settings matter on a task."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.progress import Progress

from kdlab.basics import display
from kdlab.experiment.progress import progress_bars
from kdlab.study import tasks
from kdlab.study.config import StudyConfig
from kdlab.study.lab import Lab, describe_task
from kdlab.study.networks import Networks
from kdlab.study.results import figures, recipe, report
from kdlab.study.results.pairs import Pair, tabulate_pairs
from kdlab.study.results.report import Results, describe
from kdlab.study.task import Task
from kdlab.study.trials import search
from kdlab.study.trials.search import Found, Search
from kdlab.study.trials.space import (
    RECOMMENDED,
    Setting,
    deduplicate,
    key,
    list_settings,
)
from kdlab.study.trials.store import Store

SAMPLED_TRIALS = 30  # for random and TPE search, which do not end by themselves


def run(config: StudyConfig, console: Console) -> None:
    """Runs studies, or resumes them; writes tables, figures and the best settings.

    Args:
        config: The settings.
        console: Terminal for progress and tables.

    Raises:
        ValueError: If a task is unknown, or its directory holds other trials.
        FileNotFoundError: If texts are missing; the message says what to do.
    """
    started = time.monotonic()

    def may_start() -> bool:
        spent = (time.monotonic() - started) / 60
        return config.minutes is None or spent < config.minutes

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    done = []
    for name, student in config.pairs():
        results = _study(config, name, student, console, may_start)
        if results is not None:
            done.append(Pair(name, student or "", results))
    if len(done) > 1:
        sheet = tabulate_pairs(done)
        sheet.show(console)
        path = config.runs / "study" / "pairs.md"
        path.write_text(sheet.markdown())
        display.print_path(console, path)


def _study(
    config: StudyConfig,
    name: str,
    student: str | None,
    console: Console,
    may_start: Callable[[], bool],
) -> Results | None:
    """Runs one study; returns None if not even the first training is finished."""
    networks = config.networks(student)
    task = tasks.load(name, data_dir=config.data_dir, networks=networks)
    directory = config.folder(name) / (student or "")
    config.claim(directory, describe_task(task, networks))
    with progress_bars(console) as progress:
        lab = _lab(config, task, networks, directory, progress)
        store = Store(directory, task.name, config.storage)
        try:
            found = _explore(config, _Explorer(store, lab, progress, may_start))
            scores = {name: row["by_seed"] for name, row in store.results().items()}
        finally:
            store.close()
        spaces = {name: config.space(name) for name in _balancers(config)}
        results = Results(spaces, scores, found, lab.test, config.margin)
        if key(RECOMMENDED) not in scores:
            console.print("No training is finished yet; run the same command again.")
            return None
        bar = progress.add_task("test: students of other seeds", total=None)
        sheets = report.make_sheets(results)
        progress.remove_task(bar)
    caption = _caption(config, task, student)
    for sheet in sheets:
        sheet.show(console)
    display.print_line(console, caption)
    paths = [report.write(directory, caption, sheets)]
    paths += figures.draw(results, directory / "figures")
    paths.append(recipe.write(task, results.chosen, directory))
    for path in paths:
        display.print_path(console, path)
    return results


def _balancers(config: StudyConfig) -> list[str]:
    return ["fixed", *(name for name in config.balancers if name != "fixed")]


def _caption(config: StudyConfig, task: Task, student: str | None) -> str:
    sizes = (len(part.labels) for part in (task.train, task.validation, task.test))
    return (
        "{}{}: {:,} training, {:,} validation and {:,} test examples, {} classes; {}; "
        "mean ± standard deviation over {} seeds. The grid is ours."
    ).format(
        task.name,
        f", student {student}" if student else "",
        *sizes,
        task.num_classes,
        next(iter(task.metrics)),
        config.seeds,
    )


def _lab(
    config: StudyConfig,
    task: Task,
    networks: Networks | None,
    directory: Path,
    progress: Progress,
) -> Lab:
    bar = progress.add_task(f"{task.name}: teacher", total=None)

    def show(done: int, total: int) -> None:
        progress.update(bar, completed=done, total=total)

    teacher = directory
    if networks is not None:  # students of all sizes share it
        weights = networks.teacher_weights
        name = networks.teacher if weights is None else weights.name
        teacher = config.folder(task.name) / "teachers" / name
        made_of = describe_task(task, networks._replace(student=""))
        del made_of["student_training"]
        config.claim(teacher, made_of)
    lab = Lab(task, directory, config.seeds, show, teacher / "teacher")
    progress.remove_task(bar)
    return lab


@dataclasses.dataclass(frozen=True)
class _Explorer:
    """A runner of searches on the trials of a store.

    Attributes:
        store: Store of the trials.
        lab: Trainer of missing trials.
        progress: Progress display, with the best setting so far.
        may_start: Whether there is time for another training.
    """

    store: Store
    lab: Lab
    progress: Progress
    may_start: Callable[[], bool]

    def __call__(self, name: str, run: Search, trials: int | None, size: int) -> Found:
        """Runs one search.

        Args:
            name: Name of the search, for the progress bar.
            run: The search.
            trials: Maximum number of trainings.
            size: Estimated number of trainings.
        """
        bar = self.progress.add_task(name, total=size)
        asked, best = 0, (-1.0, "")

        def note(setting: Setting, score: float) -> None:
            nonlocal best
            best = max(best, (score, describe(setting)))
            text = f"{name}: best so far {best[0]:.1%} ({best[1]})"
            self.progress.update(bar, advance=1, description=text)

        def train(setting: Setting) -> dict[str, Any]:
            result = self.lab.train(setting)
            note(setting, result["score"])
            return result

        def evaluate(settings: Sequence[Setting]) -> list[float]:
            nonlocal asked
            scores = self.store.scores(settings, train, may_start=self.may_start)
            for setting, score in zip(settings, scores, strict=True):
                note(setting, score)
            asked += len(settings)  # including stored ones
            self.progress.update(bar, completed=asked)
            return scores

        found = search.search(run, evaluate, trials=trials)
        self.progress.remove_task(bar)
        return found


def _explore(config: StudyConfig, go: _Explorer) -> dict[str, Found]:
    """Runs the searches in turn, until all are done or the time is up."""
    fixed, limit = config.space("fixed"), config.trials
    size = len(deduplicate(list_settings(fixed)))
    makers: dict[str, tuple[Search, int | None]] = {
        "greedy": (search.greedy(fixed, RECOMMENDED), limit),
        "grid": (search.grid(fixed), limit),
        "random": (search.random(fixed, 0), limit or SAMPLED_TRIALS),
        "tpe": (search.tpe(fixed, 0), limit or SAMPLED_TRIALS),
    }
    first = "greedy" if config.search == "all" else config.search
    if first != "greedy":  # greedy starts with it; the tables compare with it
        go("recommended", lambda evaluate: evaluate([RECOMMENDED]), None, 1)
    found = {first: go(first, *makers[first], size)}
    price = len(found[first].trials)
    for name in _balancers(config)[1:]:
        run = search.greedy(config.space(name), RECOMMENDED | {"balancer": name})
        found[name] = go(name, run, price, price)
    if config.search == "all":
        found["grid"] = go("grid", *makers["grid"], size)
    return found
