"""Restores the students of a finished experiment, to measure them."""

from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from kdlab.basics.reading import read_json
from kdlab.data import Dataset, load
from kdlab.data.split import Split
from kdlab.devices import checkpoint
from kdlab.experiment.make import make_config
from kdlab.experiment.students import Students, Teacher
from kdlab.experiment.teachers import get_teacher
from kdlab.minima import measure
from kdlab.models.network import Network
from kdlab.runs import files
from kdlab.runs.claim import claim_inputs
from kdlab.settings.config import NAMES, Config
from kdlab.train.methods import Plan


class Experiment(NamedTuple):
    """A finished experiment with its teacher and what it was trained on."""

    config: Config
    dataset: Dataset
    teacher: Teacher
    students: Students

    @property
    def teacher_network(self) -> Network:
        """The network of the teacher.

        Raises:
            ValueError: If there was none.
        """
        if self.teacher.network is None:
            raise ValueError(f"{self.config.directory} was run without a teacher.")
        return self.teacher.network

    def data(self, seed: int) -> Split:
        """What a student was trained on.

        Raises:
            ValueError: If it was a stream.
        """
        data = self.students.data(seed)
        if not isinstance(data, Split):
            raise ValueError(f"{self.config.directory} saw a stream, not images.")
        return data


def config_of(folder: Path, data_dir: Path | None = None) -> Config:
    """The settings of an experiment, from its ``config.json``.

    Args:
        folder: Folder of the experiment.
        data_dir: Where downloaded data sets lie; the file does not say.

    Raises:
        ValueError: If this version does not know one of its settings.
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
    """Loads data and teacher of an experiment.

    Args:
        folder: Folder of the experiment.
        progress: Shows the training of the teacher, if its cache is gone.
        data_dir: Where downloaded data sets lie.

    Raises:
        ValueError: If its settings are of another version, or the data have changed.
        FileNotFoundError: If the data set is not there.
    """
    config = config_of(folder, data_dir)
    dataset = load(
        config.data.dataset, data_dir=data_dir, image_size=config.data.image_size
    )
    claim_inputs(config, data=dataset.fingerprint)
    teacher = get_teacher(config, dataset, progress)
    return Experiment(config, dataset, teacher, Students(config, teacher))


def student(
    experiment: Experiment, plan: Plan, method: str, seed: int, *, trained: bool = True
) -> Network:
    """A student as it was at the end of its training.

    Args:
        experiment: Whose it is.
        plan: Plan of the method, for the structure of the checkpoint.
        method: Name of the method.
        seed: Which of its runs.
        trained: Whether at the end and not at the beginning.

    Raises:
        FileNotFoundError: If its checkpoint is gone.
    """
    students = experiment.students
    state = students.state(plan, seed)
    if not trained:
        return students.problem.network(state)
    folder = files.seed_folder(experiment.config.directory, method, seed)
    folder /= files.CHECKPOINTS
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
    folder = files.seed_folder(experiment.config.directory, method, seed)
    found = measure.read(folder)
    if not found:
        found = measure.measure(
            student(experiment, plan, method, seed),
            experiment.teacher_network,
            experiment.data(seed),
            experiment.dataset,
            temperature=experiment.config.distillation.temperature,
            grid=grid,
        )
        measure.write(folder, found)
    return found
