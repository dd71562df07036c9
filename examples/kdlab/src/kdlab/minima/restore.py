"""Restores the students of a finished experiment for measurement."""

from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from kdlab.basics.reading import read_json
from kdlab.data import Dataset
from kdlab.data.split import Split
from kdlab.devices import checkpoint
from kdlab.experiment.make import load_dataset, make_config
from kdlab.experiment.students import Students, Teacher
from kdlab.experiment.teachers import get_teacher
from kdlab.minima import measure
from kdlab.models.network import Network
from kdlab.runs import files
from kdlab.runs.claim import claim_inputs
from kdlab.settings.config import NAMES, Config
from kdlab.train.methods import Plan


class Experiment(NamedTuple):
    """A finished experiment with its teacher and data."""

    config: Config
    dataset: Dataset
    teacher: Teacher
    students: Students

    @property
    def teacher_network(self) -> Network:
        """Network of the teacher.

        Raises:
            ValueError: If there was no teacher.
        """
        if self.teacher.network is None:
            raise ValueError(f"{self.config.directory} was run without a teacher.")
        return self.teacher.network

    def data(self, seed: int) -> Split:
        """Returns the training data of a student.

        Raises:
            ValueError: If it was streamed.
        """
        data = self.students.data(seed)
        if not isinstance(data, Split):
            raise ValueError(
                f"{self.config.directory} was trained on a streamed data set, which "
                "cannot be restored."
            )
        return data


def read_config(folder: Path, data_dir: Path | None = None) -> Config:
    """Reads the settings of an experiment from its ``config.json``.

    Args:
        folder: Folder of the experiment.
        data_dir: Folder of downloaded data sets, which is not in the file.

    Raises:
        ValueError: If this version does not know one of the settings.
        FileNotFoundError: If the folder has no such file.
    """
    path = folder / files.CONFIG
    settings = read_json(path)
    unknown = set(settings) - set(NAMES)
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
    return make_config(**settings)


def reopen(
    folder: Path, progress: Progress, data_dir: Path | None = None
) -> Experiment:
    """Loads the data and the teacher of an experiment.

    Args:
        folder: Folder of the experiment.
        progress: Shows the training of the teacher, if it is not in the cache.
        data_dir: Folder of downloaded data sets.

    Raises:
        ValueError: If this version does not know its settings, or the data changed.
        FileNotFoundError: If the data set is missing.
    """
    config = read_config(folder, data_dir)
    dataset = load_dataset(config.data)
    claim_inputs(config, data=dataset.fingerprint)
    teacher = get_teacher(config, dataset, progress)
    return Experiment(config, dataset, teacher, Students(config, teacher))


def restore_student(
    experiment: Experiment, plan: Plan, method: str, seed: int, *, trained: bool = True
) -> Network:
    """Restores a student at the end of its training.

    Args:
        experiment: Its experiment.
        plan: Plan of the method, for the structure of the checkpoint.
        method: Name of the method.
        seed: Seed of the run.
        trained: Whether to restore the end of the training rather than its beginning.

    Raises:
        FileNotFoundError: If its checkpoint is missing.
    """
    students = experiment.students
    state = students.state(plan, seed)
    if not trained:
        return students.problem.network(state)
    folder = files.seed_folder(experiment.config.directory, method, seed)
    folder /= files.CHECKPOINTS
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: cannot measure the student.")
    with checkpoint.Saver(folder) as saver:
        state, position = saver.restore(state)
    if position.epoch == 0:
        raise FileNotFoundError(f"{folder} holds no checkpoint to measure.")
    return students.problem.network(state)


def load_or_measure(
    experiment: Experiment, plan: Plan, method: str, seed: int, grid: measure.Grid
) -> measure.Measures:
    """Reads the measures of a run, or measures the student and writes them.

    Raises:
        FileNotFoundError: If its checkpoint is missing.
        ValueError: If it had no teacher, or was trained on a streamed data set.
    """
    folder = files.seed_folder(experiment.config.directory, method, seed)
    found = measure.read(folder)
    if not found:
        found = measure.measure(
            restore_student(experiment, plan, method, seed),
            experiment.teacher_network,
            experiment.data(seed),
            experiment.dataset,
            temperature=experiment.config.distillation.temperature,
            grid=grid,
        )
        measure.write(folder, found)
    return found
