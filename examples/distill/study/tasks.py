"""The tasks of a study: inputs and labels in three fixed parts, and two networks."""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.distill import data, models
from examples.distill.data.dataset import stratified_order
from examples.distill.data.tfds_source import tfds_names
from examples.distill.models import Model
from examples.distill.study import texts
from examples.distill.study.transformer import Transformer

Lesson = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From a seed to the learner's part of the training examples ``[m]``, and the labels
that it is told, ``[n]``."""

SPLIT_SEED = 0  # part of the definition of the tasks


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
        weight_decay: Of AdamW, or the L2 penalty of SGD.
    """

    epochs: int
    batch_size: int
    optimizer: str
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


class _TextStyle(NamedTuple):
    """How the texts of a task become tokens, and how many of them are used."""

    characters: bool
    vocabulary: int
    length: int
    parts: tuple[int, int, int] = (2048, 1024, 2048)


TEXTS: dict[str, tuple[Callable[[], texts.Texts], _TextStyle]] = {
    "languages": (texts.languages, _TextStyle(True, 96, 24)),
    "verses": (texts.verses, _TextStyle(False, 2000, 32)),
}
IMAGES = ("mnist5k",)
# Sets of TFDS that a study can be made on, for the message about a wrong name.
PUBLIC = ("glue/sst2", "glue/mrpc", "glue/cola", "glue/qnli", "glue/rte", "glue/mnli")
PUBLIC += ("ag_news_subset", "imdb_reviews")


def load(name: str, *, data_dir: Path | None = None) -> Task:
    """Makes a task.

    Args:
        name: ``languages``, ``verses``, ``mnist5k``, or a set of labelled texts that
            TFDS prepared in `data_dir`, for example ``glue/sst2``.
        data_dir: Root of the prepared sets.

    Raises:
        ValueError: If there is no task of that name.
        FileNotFoundError: If the set is not prepared; it says how to prepare it.
        ModuleNotFoundError: If the package with the texts is not installed.
    """
    if name in TEXTS:
        read, style = TEXTS[name]
        return _text_task(name, *_split(read(), style.parts), style)
    if name in IMAGES:
        return _digits(name)
    if name.split("/")[0] not in {*(n.split("/")[0] for n in PUBLIC), *tfds_names()}:
        known = [*TEXTS, *IMAGES, *PUBLIC]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"--task {name!r} is unknown; {hint}choose {', '.join(known)} or another "
            "set of labelled texts in TFDS."
        )
    train, test = texts.prepared(name, data_dir)
    # A tenth for the choice of settings.
    held = max(1, len(train.texts) // 10)
    kept = len(train.texts) - held
    train, validation, _ = _split(train, (kept, held, 0))
    return _text_task(name, train, validation, test, _TextStyle(False, 8000, 64))


def _split(
    source: texts.Texts, sizes: tuple[int, int, int]
) -> tuple[texts.Texts, texts.Texts, texts.Texts]:
    """Three random parts of at most these sizes, no group in two of them."""
    rng = np.random.default_rng(SPLIT_SEED)
    groups = rng.permutation(np.unique(source.groups))
    bounds = np.round(np.cumsum(sizes) / sum(sizes) * len(groups)).astype(int)
    parts = []
    for chosen, size in zip(np.split(groups, bounds[:-1]), sizes, strict=True):
        rows = rng.permutation(np.flatnonzero(np.isin(source.groups, chosen)))[:size]
        parts.append(
            texts.Texts(
                [source.texts[row] for row in rows],
                source.labels[rows],
                source.groups[rows],
                source.num_classes,
            )
        )
    return parts[0], parts[1], parts[2]


def _text_task(
    name: str,
    train: texts.Texts,
    validation: texts.Texts,
    test: texts.Texts,
    style: _TextStyle,
) -> Task:
    tokens = texts.Tokens(
        train.texts,
        characters=style.characters,
        size=style.vocabulary,
        length=style.length,
    )

    def network(width: int, depth: int, heads: int) -> Callable[[nnx.Rngs], Model]:
        return lambda rngs: Transformer(
            len(tokens),
            style.length,
            train.num_classes,
            width=width,
            depth=depth,
            heads=heads,
            rngs=rngs,
        )

    part = Part(tokens(train.texts), train.labels)
    return Task(
        name=name,
        train=part,
        validation=Part(tokens(validation.texts), validation.labels),
        test=Part(tokens(test.texts), test.labels),
        num_classes=train.num_classes,
        teacher=network(64, 2, 4),
        student=network(24, 1, 2),
        teacher_training=Training(16, 64, "adamw", 2e-3, 1e-2),
        student_training=Training(6, 64, "adamw", 5e-3, 1e-2),
        lesson=everything(part),
    )


def everything(part: Part) -> Lesson:
    """The lesson of all examples with their true labels, for every seed."""
    rows = np.arange(len(part.labels), dtype=np.int32)

    def lesson(seed: int) -> tuple[np.ndarray, np.ndarray]:
        del seed
        return rows, part.labels

    return lesson


def _digits(name: str) -> Task:
    """The demo's setting: 400 labels a student, 40 % of them drawn again at random."""
    dataset = data.load(name)

    def normal(images: np.ndarray) -> np.ndarray:
        moments = dataset.mean, dataset.std
        return np.asarray(data.normalize(jnp.asarray(images), *moments))

    pixels = normal(dataset.train_images)
    held = np.random.default_rng(SPLIT_SEED).permutation(len(pixels))[:500]
    kept = np.setdiff1d(np.arange(len(pixels)), held)
    labels = dataset.train_labels[kept]

    def lesson(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rows = stratified_order(labels, seed)[:400]
        told = labels.copy()
        told[rows] = data.corrupt_labels(labels[rows], 0.4, dataset.num_classes, seed)
        return rows, told

    def network(model: str) -> Callable[[nnx.Rngs], Model]:
        return lambda rngs: models.create(
            model,
            num_classes=dataset.num_classes,
            image_shape=dataset.image_shape,
            rngs=rngs,
        )

    student = Training(12, 50, "sgd", 0.02, 5e-4)
    return Task(
        name=name,
        train=Part(pixels[kept], labels),
        validation=Part(pixels[held], dataset.train_labels[held]),
        test=Part(normal(dataset.test_images), dataset.test_labels),
        num_classes=dataset.num_classes,
        teacher=network("cnn_teacher"),
        student=network("cnn_student"),
        teacher_training=Training(10, 64, "sgd", 0.05, 5e-4),
        student_training=student,
        lesson=lesson,
        recipe={
            "dataset": name,
            "labels": 400,
            "noise": 0.4,
            "augment": "none",
            "teacher": "cnn_teacher",
            "student": "cnn_student",
            "epochs": student.epochs,
            "batch_size": student.batch_size,
            "learning_rate": student.learning_rate,
            "weight_decay": student.weight_decay,
        },
    )
