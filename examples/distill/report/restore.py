"""Brings the students of a finished experiment back, to be measured."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from examples.distill import checkpoint
from examples.distill.config import Config
from examples.distill.data import Dataset, load
from examples.distill.methods import Plan
from examples.distill.network import Network, Split
from examples.distill.report import measure
from examples.distill.students import Students, Teacher, directory
from examples.distill.teachers import get_teacher


class Experiment(NamedTuple):
    """A finished experiment with its teacher and what it was trained on."""

    config: Config
    dataset: Dataset
    teacher: Teacher
    students: Students


def config_of(folder: Path, data_dir: Path | None = None) -> Config:
    """The settings of an experiment, from its ``config.json``.

    Args:
        folder: Of the experiment.
        data_dir: Where downloaded data sets lie; the file does not say.

    Raises:
        ValueError: If this version does not know one of its settings.
        FileNotFoundError: If the folder has no such file.
    """
    path = folder / "config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    unknown = set(settings) - {field.name for field in dataclasses.fields(Config)}
    if unknown:
        raise ValueError(
            f"{path} has settings that this version does not know: "
            f"{', '.join(sorted(unknown))}."
        )
    for name, value in settings.items():
        if isinstance(value, list):
            settings[name] = tuple(value)
        if name.endswith("_weights") and isinstance(value, str):
            settings[name] = Path(value)
    settings |= {"name": folder.name, "runs": folder.parent, "data_dir": data_dir}
    return Config(**settings)


def reopen(
    folder: Path, progress: Progress, data_dir: Path | None = None
) -> Experiment:
    """Loads data and teacher of an experiment.

    Args:
        folder: Of the experiment.
        progress: Shows the training of the teacher, if its cache is gone.
        data_dir: Where downloaded data sets lie.

    Raises:
        ValueError: If its settings are of another version.
        FileNotFoundError: If the data set is not there.
    """
    config = config_of(folder, data_dir)
    dataset = load(config.dataset, data_dir=data_dir)
    teacher = get_teacher(config, dataset, progress)
    return Experiment(config, dataset, teacher, Students(config, teacher))


def student(experiment: Experiment, plan: Plan, method: str, seed: int) -> Network:
    """A student as it was at the end of its training.

    Args:
        experiment: Whose it is.
        plan: Of the method, for the structure of the checkpoint.
        method: Name of the method.
        seed: Which of its runs.

    Raises:
        FileNotFoundError: If its checkpoint is gone.
    """
    students = experiment.students
    state = students.state(plan, seed)
    folder = directory(experiment.config, method, seed) / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is gone: the student cannot be measured.")
    with checkpoint.Saver(folder) as saver:
        state, position = saver.restore(state)
    if position.epoch == 0:
        raise FileNotFoundError(f"{folder} holds no checkpoint to be measured.")
    return students.problem.network(state)


def measured(
    experiment: Experiment, plan: Plan, method: str, seed: int, grid: measure.Grid
) -> measure.Measures:
    """The measures of a run: from its file, or taken now and kept.

    Raises:
        FileNotFoundError: If its checkpoint is gone.
        ValueError: If it had no teacher to be compared with, or saw a stream.
    """
    folder = directory(experiment.config, method, seed)
    found = measure.read(folder)
    if not found:
        teacher, data = experiment.teacher.network, experiment.students.data(seed)
        if not isinstance(data, Split):
            raise ValueError(f"{folder} saw a stream: images in memory are needed.")
        if teacher is None:
            raise ValueError(f"{folder} had no teacher to be compared with.")
        found = measure.measure(
            student(experiment, plan, method, seed),
            teacher,
            data,
            experiment.dataset,
            temperature=experiment.config.temperature,
            grid=grid,
        )
        measure.write(folder, found)
    return found
