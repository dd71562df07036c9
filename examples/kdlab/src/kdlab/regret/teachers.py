"""Trains the teachers of the situations once and keeps what they say."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab import data
from kdlab.basics.reading import reading
from kdlab.basics.writing import replacing
from kdlab.data.dataset import stratified_order
from kdlab.regret.situation import TeacherKind
from kdlab.study.task import Lesson, Task, Training
from kdlab.study.teacher import ALONE
from kdlab.study.training import EVALUATION_BATCH, Trainer

WEAK = 250  # labels of the weak teacher
WRONG = 1500  # labels of the wrong teacher,
WRONG_SHARE = 0.45  # of which this share are drawn again


class Teacher(NamedTuple):
    """Outputs of a teacher on the training inputs of its task.

    Attributes:
        logits: ``[n, c]``, float32.
        features: Inputs of its classifier, ``[n, d]``, float32.
        accuracy: Accuracy on the test part.
    """

    logits: np.ndarray
    features: np.ndarray
    accuracy: float


def get_teacher(task: Task, kind: TeacherKind, folder: Path) -> Teacher:
    """Reads the outputs of a teacher, or trains it and writes them.

    Args:
        task: The task.
        kind: Kind of the teacher.
        folder: Folder of the outputs.
    """
    digest = hashlib.sha256(np.ascontiguousarray(task.train.inputs).tobytes())
    digest.update(np.ascontiguousarray(task.train.labels).tobytes())
    path = folder / f"{task.name}-{kind}-{digest.hexdigest()[:8]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **_train(task, kind)._asdict())
    with (
        reading(path, "Remove it: the teacher is trained again."),
        np.load(path) as held,
    ):
        return Teacher(held["logits"], held["features"], float(held["accuracy"]))


def _train(task: Task, kind: TeacherKind) -> Teacher:
    lesson, training = _make_lesson(task, kind)
    trainer = Trainer(task, task.teacher, training, lesson)
    nothing = jnp.zeros((len(task.train.labels), task.num_classes))
    *_, stacked = trainer.epochs(ALONE, nothing, [0])
    params = jax.tree.map(lambda x: x[0], stacked)
    graphdef = nnx.split(nnx.eval_shape(lambda: task.teacher(nnx.Rngs(0))))[0]

    @jax.jit
    def apply(inputs: Any) -> tuple[jax.Array, jax.Array]:
        outputs = nnx.merge(graphdef, params)(inputs)
        return outputs.logits, outputs.pooled

    def outputs(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = range(0, len(inputs), EVALUATION_BATCH)
        parts = [apply(inputs[start : start + EVALUATION_BATCH]) for start in starts]
        logits, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        return logits, features

    hits = np.argmax(outputs(task.test.inputs)[0], axis=-1) == task.test.labels
    return Teacher(*outputs(task.train.inputs), float(np.mean(hits)))


def _make_lesson(task: Task, kind: TeacherKind) -> tuple[Lesson, Training]:
    """Examples and labels of a teacher, and its training."""
    labels, training = task.train.labels, task.teacher_training
    if kind == "good":
        return task.lesson, training
    if kind == "half":
        return lambda _: (
            np.flatnonzero(labels < task.num_classes // 2),
            labels,
        ), training
    slow = training.learning_rate * 0.4
    if kind == "weak":
        rows, shown = stratified_order(labels, 1)[:WEAK], labels
        epochs = 40
    else:
        rows, shown = stratified_order(labels, 2)[:WRONG], labels.copy()
        shown[rows] = data.corrupt_labels(
            labels[rows], WRONG_SHARE, task.num_classes, 3
        )
        epochs = 30
    few = Training(epochs, training.batch_size, training.optimizer, slow, 5e-4)
    return lambda _: (rows, shown), few
