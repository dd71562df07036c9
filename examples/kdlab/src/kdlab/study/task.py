"""The task of a study: inputs and labels in three parts, and two networks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from flax import nnx

from kdlab.models import Model

Lesson = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""Maps a seed to the indices of the student's training examples ``[m]`` and the labels
``[n]`` of all, which may be noisy."""


class Part(NamedTuple):
    """Inputs and labels.

    Attributes:
        inputs: Token ids ``[n, t]``, or normalised images ``[n, h, w, c]``.
        labels: The class of each example ``[n]``, of each token ``[n, t]`` or of the
            first and last token of an answer ``[n, 2]``, where a negative number is no
            class; or the probability of each class, ``[n, c]``.
        human: Probability of each class in the opinion of people, ``[n, c]``; None if
            nobody was asked.
        facts: What else a metric of the task needs.
    """

    inputs: np.ndarray
    labels: np.ndarray
    human: np.ndarray | None = None
    facts: Any = None


Metric = Callable[[np.ndarray, Part], float]
"""Scores the logits ``[n, ..., c]`` of a part; higher is better."""


def accuracy(logits: np.ndarray, part: Part) -> float:
    """Computes the accuracy over all labels that are classes."""
    known = part.labels >= 0
    return float(np.mean(np.argmax(logits, -1)[known] == part.labels[known]))


ACCURACY: Mapping[str, Metric] = {"accuracy": accuracy}


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples per step.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: Initial rate, which follows a cosine to 0.
        weight_decay: Decoupled weight decay of AdamW, or L2 penalty of SGD.
        warmup: Share of the steps in which the rate rises from 0.
    """

    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    warmup: float = 0.0


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of a study.

    Attributes:
        name: Name under which it was requested.
        train: Examples of the teacher, of which the student sees a part.
        validation: Examples on which settings and checkpoints are chosen.
        test: Examples that are used once, at the end.
        num_classes: Number of classes.
        teacher: Makes the teacher.
        student: Makes the student.
        teacher_training: How the teacher is trained.
        student_training: How the student is trained.
        lesson: Training examples and labels of the student.
        recipe: Settings of the task in ``kdlab distill``; None if that command does not
            know it.
        metrics: Metrics by name; the first one is the score that is searched for.
        teacher_start: Pretrained weights of the teacher, or of a part of it.
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
    metrics: Mapping[str, Metric] = dataclasses.field(default_factory=lambda: ACCURACY)
    teacher_start: nnx.State | None = None


def make_full_lesson(part: Part) -> Lesson:
    """Returns the lesson of all examples with their true labels."""
    return make_first_lesson(part, len(part.labels))


def make_first_lesson(part: Part, count: int) -> Lesson:
    """Returns the lesson of the first examples with their true labels."""
    rows = np.arange(min(count, len(part.labels)), dtype=np.int32)

    def lesson(seed: int) -> tuple[np.ndarray, np.ndarray]:
        del seed
        return rows, part.labels

    return lesson
