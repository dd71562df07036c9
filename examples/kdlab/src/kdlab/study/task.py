"""What a task of a study is: inputs and labels in three parts, and two networks."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from flax import nnx

from kdlab.models import Model

Lesson = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From a seed to the learner's part of the training examples ``[m]``, and the labels
that it is told, ``[n]``."""


class Part(NamedTuple):
    """Inputs and labels.

    Attributes:
        inputs: Token numbers ``[n, t]``, or normalised images ``[n, h, w, c]``.
        labels: ``[n]``.
    """

    inputs: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples in a step.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: At the beginning; it falls to 0 along a cosine.
        weight_decay: Decoupled decay of AdamW, or L2 penalty of SGD.
    """

    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float


@dataclasses.dataclass(frozen=True)
class Task:
    """What a study is made on.

    Attributes:
        name: What was asked for.
        train: What the teacher sees, and the student a part of.
        validation: Settings and checkpoints are chosen on it.
        test: Looked at once, at the end.
        num_classes: Number of classes.
        teacher: Makes the teacher.
        student: Makes the student.
        teacher_training: How the teacher is trained.
        student_training: How the student is trained.
        lesson: What the student is shown.
        recipe: What a recipe of the plain command repeats of this task; None where
            that command does not know it.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    num_classes: int
    teacher: Callable[[nnx.Rngs], Model]
    student: Callable[[nnx.Rngs], Model]
    teacher_training: Training
    student_training: Training
    lesson: Lesson
    recipe: dict[str, Any] | None = None


def everything(part: Part) -> Lesson:
    """The lesson of all examples with their true labels, for every seed."""
    rows = np.arange(len(part.labels), dtype=np.int32)

    def lesson(seed: int) -> tuple[np.ndarray, np.ndarray]:
        del seed
        return rows, part.labels

    return lesson
