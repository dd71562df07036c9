"""Teachers: trained here and kept, or loaded from weights that someone published."""

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from rich.progress import Progress

from examples.distill import checkpoint, mesh, splits, weights
from examples.distill.config import Config
from examples.distill.data import Dataset, Streamed
from examples.distill.mesh import make_layout
from examples.distill.problem import Network, evaluate
from examples.distill.progress import show_run
from examples.distill.step import TrainState
from examples.distill.students import Students, Teacher, make_teacher
from examples.distill.train import fit

BATCH, RATE = 64, 0.05
ALONE = "labels_only"


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
        The teacher, which holds no network if ``config.teacher`` is None.

    Raises:
        FileNotFoundError: If the weights are not there.
        ValueError: If they belong to another network.
        FloatingPointError: If the training diverged.
    """
    if config.teacher is None:
        return Teacher(None, dataset)
    if config.teacher_weights is not None:
        return load_teacher(config, dataset)
    return train_teacher(config, dataset, progress)


def train_teacher(
    config: Config, dataset: Dataset | Streamed, progress: Progress
) -> Teacher:
    """Trains the teacher on all labels, or takes it from the cache.

    The cache is keyed by what decides its training, so that experiments share it.

    Raises:
        FloatingPointError: If the teacher diverged.
    """
    decisive = ("dataset", "teacher", "teacher_epochs", "augment", "momentum")
    settings = {key: getattr(config, key) for key in (*decisive, "weight_decay")}
    if config.max_blocks is not None:
        settings["max_blocks"] = config.max_blocks
    settings |= {"batch_size": BATCH, "learning_rate": RATE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    folder = config.runs / "teachers" / f"{config.teacher}-{digest[:12]}"
    students = _alone(config, dataset)
    plan, job = students.plan(ALONE), students.run(ALONE, 0)._replace(directory=folder)
    state = students.state(plan, 0)
    if not (folder / "result.json").exists():
        step = students.step(plan)
        # A step uses the state up that it is given.
        copied = jax.tree.map(jnp.copy, state)
        start = partial(fit, job, students.problem, step, copied)
        show_run(start, job, f"teacher {config.teacher}", progress)
        if mesh.is_first():
            (folder / "settings.json").write_text(json.dumps(settings, indent=2))
    result = (folder / "result.json").read_text()
    if "diverged" in json.loads(result):
        raise FloatingPointError(
            f"The teacher of {folder} diverged: choose another --teacher."
        )
    if mesh.is_first():
        (config.directory / "teacher.json").write_text(result)
    return Teacher(_network(students, state, folder), dataset)


def load_teacher(config: Config, dataset: Dataset | Streamed) -> Teacher:
    """Reads the weights of a teacher and tests it.

    Raises:
        FileNotFoundError: If the weights are not there.
        ValueError: If they belong to another network.
    """
    path = (config.teacher_weights or Path()).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"--teacher-weights {path} is not there; expected an Orbax folder, a "
            f"safetensors file or a file of torch.save with the weights of "
            f"{config.teacher}. Without the option it is trained."
        )
    model = nnx.eval_shape(lambda: make_teacher(config, dataset))
    try:
        if path.is_dir():
            weights.load_orbax(path, model)
        else:
            tensors = weights.read_torch(path)
            nnx.update(model, weights.from_torch(str(config.teacher), model, tensors))
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path} does not hold the weights of {config.teacher} for the "
            f"{dataset.num_classes} classes of {dataset.name}: {error}"
        ) from error
    network, layout = Network.of(model), make_layout(config.devices)
    moments = tuple(dataset.mean), tuple(dataset.std)
    test = splits.testing(config, dataset)
    accuracy = evaluate(layout.replicate(network), test, layout, moments)["accuracy"]
    result = {"accuracy/last": accuracy, "accuracy/best": accuracy}
    if mesh.is_first():
        text = json.dumps(result, indent=2) + "\n"
        (config.directory / "teacher.json").write_text(text)
    return Teacher(network, dataset)


def export_student(students: Students) -> Path:
    """Writes the weights of the first method's student of seed 0, for a teacher.

    Returns:
        The Orbax folder, to be given as ``--teacher-weights``.
    """
    config = students.config
    path = config.directory / "weights"
    if not path.exists():
        method = config.methods[0]
        state = students.state(students.plan(method), 0)
        network = _network(students, state, students.run(method, 0).directory)
        weights.save_orbax(path, nnx.merge(*network))
    return path


def _alone(config: Config, dataset: Dataset | Streamed) -> Students:
    """The teacher as a student of all labels, the only one of its experiment."""
    settings = dataclasses.replace(
        config,
        student=str(config.teacher),
        teacher=None,
        teacher_weights=None,
        methods=(ALONE,),
        labels=None,
        noise=0.0,
        loss="kd",
        loss_weights=None,
        loss_beta=None,
        loss_warmup=None,
        epochs=config.teacher_epochs,
        batch_size=BATCH,
        accumulate=1,
        optimizer="sgd",
        learning_rate=RATE,
        schedule="cosine",
        decay_epochs=(),
        warmup_epochs=0.0,
        nesterov=False,
        clip=None,
        ema=None,
        dtype="float32",
        batch_norm_group=None,
        on_nonfinite="stop",
    )
    return Students(settings, Teacher(None, dataset))


def _network(students: Students, state: TrainState, folder: Path) -> Network:
    with checkpoint.Saver(folder / "checkpoints") as saver:
        state, position = saver.restore(state)
    if position.epoch == 0:
        raise FileNotFoundError(
            f"{folder} holds a result but no checkpoint: move it away to train again."
        )
    return students.problem.network(state)
