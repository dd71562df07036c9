"""Teachers: trained here and cached, or loaded from published weights."""

import dataclasses
import hashlib
import json
import logging
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.progress import Progress

from kdlab.basics.importing import is_reference, source_of
from kdlab.basics.reading import UserError
from kdlab.basics.writing import write_json
from kdlab.data import Dataset, Streamed
from kdlab.data.fingerprint import hash_arrays
from kdlab.data.kept import short_name
from kdlab.devices import checkpoint, mesh
from kdlab.experiment.finite import check_outputs
from kdlab.experiment.networks import make_teacher
from kdlab.experiment.progress import show_run
from kdlab.experiment.students import Students, Teacher
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.runs import files
from kdlab.runs.claim import claim_inputs
from kdlab.settings.config import Config
from kdlab.settings.parts import Distillation, Networks, Training
from kdlab.train.fit import fit
from kdlab.train.state import TrainState

BATCH, RATE = 64, 0.05
ALONE = "labels_only"
_log = logging.getLogger(__name__)


def get_teacher(
    config: Config, dataset: Dataset | Streamed, progress: Progress
) -> Teacher:
    """The teacher of an experiment; writes its accuracy into its directory.

    Args:
        config: The settings: ``teacher_weights`` are loaded; without them the teacher
            is trained.
        dataset: The data set; the teacher sees all its labels.
        progress: Where the training is shown.

    Returns:
        The teacher, which holds no network if ``config.networks.teacher`` is None.

    Raises:
        FileNotFoundError: If the weights are not there.
        ValueError: If they belong to another network, or its outputs are not finite.
        FloatingPointError: If the training diverged.
    """
    if config.networks.teacher is None:
        return Teacher(None, dataset)
    if config.networks.teacher_weights is not None:
        return load_teacher(config, dataset)
    return train_teacher(config, dataset, progress)


def train_teacher(
    config: Config, dataset: Dataset | Streamed, progress: Progress
) -> Teacher:
    """Trains the teacher on all labels, or takes it from the cache.

    The cache is keyed by what decides its training, so that experiments share it. One
    that cannot be read is moved aside, with a line that says so.

    Raises:
        FloatingPointError: If the teacher diverged.
        ValueError: If its outputs are not finite.
    """
    folder = kept_in(config, dataset)
    students = Students(alone(config), Teacher(None, dataset))
    plan, job = students.plan(ALONE), students.run(ALONE, 0)._replace(directory=folder)
    state = students.state(plan, 0)
    _move_unreadable(folder, state)
    if not files.has_result(folder):
        step = students.step(plan)
        # A step uses the state up that it is given.
        copied = jax.tree.map(jnp.copy, state)
        start = partial(fit, job, students.problem, step, copied)
        show_run(start, job, f"teacher {config.networks.teacher}", progress)
        if mesh.is_first():
            write_json(folder / "settings.json", _decisive(config, dataset))
    result = files.read_result(folder)
    if files.DIVERGED in result:
        raise FloatingPointError(
            f"The teacher of {folder} diverged: choose another --teacher."
        )
    network = _network(students, state, folder)
    _check(network, config, dataset, folder, result)
    return Teacher(network, dataset)


def kept_in(config: Config, dataset: Dataset | Streamed) -> Path:
    """Where a teacher is kept that is trained here: by a hash of all that decides it.

    Args:
        config: The settings of the experiment.
        dataset: What the teacher learns from: its contents are part of the hash.
    """
    text = json.dumps(_decisive(config, dataset), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (
        config.execution.runs
        / "teachers"
        / f"{short_name(str(config.networks.teacher))}-{digest[:12]}"
    )


def _decisive(config: Config, dataset: Dataset | Streamed) -> dict[str, Any]:
    settings = alone(config).settings() | {"data": dataset.fingerprint}
    del settings["name"]
    network = str(config.networks.teacher)
    if is_reference(network):  # of its other modules nothing is known
        source = source_of(network)
        settings["code"] = source and hash_arrays((), source.read_text())
    return settings


def alone(config: Config) -> Config:
    """Settings of the teacher: a student of all labels, alone in its experiment.

    Of the settings it keeps those of the data, where and on what it runs, and the few
    of the networks and of the training that are named here. So no other setting can
    have an effect on it.
    """
    networks, training = config.networks, config.training
    return dataclasses.replace(
        config,
        methods=(ALONE,),
        data=dataclasses.replace(config.data, labels=None, noise=0.0),
        networks=Networks(
            student=str(networks.teacher),
            teacher=None,
            teacher_epochs=networks.teacher_epochs,
            max_blocks=networks.max_blocks,
        ),
        distillation=Distillation(),
        training=Training(
            epochs=networks.teacher_epochs,
            batch_size=BATCH,
            learning_rate=RATE,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        ),
    )


def _move_unreadable(folder: Path, state: TrainState) -> None:
    """Makes room for a teacher where what is kept of it cannot be read."""
    if not mesh.agreed(folder.exists()):
        return
    try:
        result = files.read_result(folder) if files.has_result(folder) else {}
        with checkpoint.Saver(folder / files.CHECKPOINTS) as saver:
            _, position = saver.restore(state)
        done = result and files.DIVERGED not in result
        missing = f"{folder} holds a result but no checkpoint"
        reason = missing if done and not position.epoch else ""
    except UserError as error:
        reason = str(error).rstrip(".")
    if mesh.agreed(not reason):
        return
    if mesh.is_first():
        places = (folder.with_name(f"{folder.name}-unreadable{n}") for n in count(1))
        aside = next(place for place in places if not place.exists())
        folder.rename(aside)
        _log.warning("%s. Moved to %s; a new teacher is trained.", reason, aside)
    mesh.wait_for_all("the unreadable teacher is moved")


def load_teacher(config: Config, dataset: Dataset | Streamed) -> Teacher:
    """Reads the weights of a teacher and tests it.

    Raises:
        FileNotFoundError: If the weights are not there.
        ValueError: If they belong to another network, or its outputs are not finite.
    """
    path = (config.networks.teacher_weights or Path()).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"--teacher-weights {path} is not there; expected an Orbax folder, a "
            f"safetensors file or a file of torch.save with the weights of "
            f"{config.networks.teacher}. Without the option it is trained."
        )
    model = nnx.eval_shape(lambda: make_teacher(config, dataset))
    try:
        weights.fill(str(config.networks.teacher), model, path)
    except UserError:
        raise
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold the weights of {config.networks.teacher} for the "
            f"{dataset.num_classes} classes of {dataset.name}: {error}"
        ) from error
    network = Network.of(model)
    if mesh.is_first():
        claim_inputs(config, teacher=hash_arrays((network.params, network.rest)))
    _check(network, config, dataset, path)
    return Teacher(network, dataset)


def _check(
    network: Network,
    config: Config,
    dataset: Dataset | Streamed,
    source: Path,
    result: dict[str, float] | None = None,
) -> None:
    """Refuses a teacher that is not finite, and writes how good it is.

    An experiment looks at its training images once: ``teacher.json`` is there then.
    """
    path = config.directory / files.TEACHER
    first = mesh.agreed(not path.exists())
    accuracy = check_outputs(network, config, dataset, source, training=first)
    result = result or {"accuracy/last": accuracy, "accuracy/best": accuracy}
    if mesh.is_first():
        files.write_teacher(config.directory, result)


def export_student(students: Students) -> Path:
    """Writes the weights of the first method's student of seed 0, for a teacher.

    Returns:
        The Orbax folder, to be given as ``--teacher-weights``.
    """
    config = students.config
    path = config.directory / files.WEIGHTS
    if not path.exists():
        method = config.methods[0]
        state = students.state(students.plan(method), 0)
        network = _network(students, state, students.run(method, 0).directory)
        weights.save_orbax(path, nnx.merge(*network))
    return path


def _network(students: Students, state: TrainState, folder: Path) -> Network:
    with checkpoint.Saver(folder / files.CHECKPOINTS) as saver:
        state, position = saver.restore(state)
    if position.epoch == 0:
        raise FileNotFoundError(
            f"{folder} holds a result but no checkpoint: move it away to train again."
        )
    return students.problem.network(state)
