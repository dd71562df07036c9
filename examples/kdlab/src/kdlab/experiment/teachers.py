"""Trains and caches teachers, or loads their weights."""

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

from kdlab.basics.importing import find_source, is_reference
from kdlab.basics.reading import UserError
from kdlab.basics.writing import write_json
from kdlab.data import Dataset, Streamed
from kdlab.data.array_cache import short_name
from kdlab.data.fingerprint import hash_arrays
from kdlab.devices import checkpoint, mesh
from kdlab.experiment.finite import check_outputs
from kdlab.experiment.networks import make_teacher
from kdlab.experiment.progress import show_run
from kdlab.experiment.students import Students, Teacher
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.runs import files
from kdlab.runs.claim import claim_inputs
from kdlab.settings.augmentation import Augmentation
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
    """Returns the teacher of an experiment and writes its accuracy.

    Args:
        config: The settings; without ``teacher_weights`` the teacher is trained.
        dataset: The data set; the teacher sees all its labels.
        progress: Progress display of the training.

    Returns:
        The teacher, without a network if ``config.networks.teacher`` is None.

    Raises:
        FileNotFoundError: If the weights do not exist.
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

    The cache is keyed by everything that affects the training, so experiments share
    teachers. An unreadable one is moved aside with a warning.

    Raises:
        FloatingPointError: If the training diverged.
        ValueError: If its outputs are not finite.
    """
    folder = cache_folder(config, dataset)
    students = Students(teacher_config(config), Teacher(None, dataset))
    plan, job = students.plan(ALONE), students.run(ALONE, 0)._replace(directory=folder)
    state = students.state(plan, 0)
    _move_unreadable(folder, state)
    if not files.has_result(folder):
        step = students.step(plan)
        # Steps donate their state.
        copied = jax.tree.map(jnp.copy, state)
        start = partial(fit, job, students.problem, step, copied)
        show_run(start, job, f"teacher {config.networks.teacher}", progress)
        if mesh.is_first():
            write_json(folder / "settings.json", _cache_key(config, dataset))
    result = files.read_result(folder)
    if files.DIVERGED in result:
        raise FloatingPointError(
            f"The teacher of {folder} diverged: choose another --teacher."
        )
    network = _network(students, state, folder)
    _check(network, config, dataset, folder, result)
    return Teacher(network, dataset)


def cache_folder(config: Config, dataset: Dataset | Streamed) -> Path:
    """Returns the cache folder of a teacher, named by a hash of its settings and data.

    Args:
        config: The settings of the experiment.
        dataset: Training data of the teacher; its contents are part of the hash.
    """
    text = json.dumps(_cache_key(config, dataset), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (
        config.execution.runs
        / "teachers"
        / f"{short_name(str(config.networks.teacher))}-{digest[:12]}"
    )


def _cache_key(config: Config, dataset: Dataset | Streamed) -> dict[str, Any]:
    settings = teacher_config(config).settings() | {"data": dataset.fingerprint}
    del settings["name"]
    network = str(config.networks.teacher)
    if is_reference(network):  # the modules that it imports are not hashed
        source = find_source(network)
        settings["code"] = source and hash_arrays((), source.read_text())
    return settings


def teacher_config(config: Config) -> Config:
    """Returns the settings of the teacher's own training, on all labels.

    Only the data and execution settings and the few settings of networks and training
    named here are kept, so that no other setting can affect the teacher.
    """
    networks, training = config.networks, config.training
    return dataclasses.replace(
        config,
        methods=(ALONE,),
        data=dataclasses.replace(config.data, labels=None, noise=0.0),
        augmentation=Augmentation(),
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
    """Moves a cached teacher aside if it cannot be read."""
    if not mesh.broadcast(folder.exists()):
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
    if mesh.broadcast(not reason):
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
        FileNotFoundError: If the weights do not exist.
        ValueError: If they belong to another network, or its outputs are not finite.
    """
    path = (config.networks.teacher_weights or Path()).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"--teacher-weights {path} does not exist; expected an Orbax folder, a "
            f"safetensors file or a torch.save file with the weights of "
            f"{config.networks.teacher}. Leave the option out to train the teacher."
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
    """Refuses a teacher whose outputs are not finite, and writes its accuracy.

    Training images are checked once per experiment: afterwards ``teacher.json`` exists.
    """
    path = config.directory / files.TEACHER
    first = mesh.broadcast(not path.exists())
    accuracy = check_outputs(network, config, dataset, source, training=first)
    result = result or {"accuracy/last": accuracy, "accuracy/best": accuracy}
    if mesh.is_first():
        files.write_teacher(config.directory, result)


def export_student(students: Students) -> Path:
    """Writes the weights of the first method's student of seed 0, to use as a teacher.

    Returns:
        The Orbax folder, to pass as ``--teacher-weights``.
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
