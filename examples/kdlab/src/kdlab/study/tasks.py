"""The tasks of studies, with fixed splits."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab import data, models
from kdlab.basics.hint import did_you_mean
from kdlab.data.dataset import stratified_order
from kdlab.data.sources.tfds_source import tfds_names
from kdlab.data.text import packaged
from kdlab.data.text.published import PUBLISHED
from kdlab.data.text.records import Texts
from kdlab.data.text.words import Tokens
from kdlab.models import Model
from kdlab.models.encoders.pre_norm import Transformer
from kdlab.study import encoder_tasks
from kdlab.study.encoder_tasks import OFFLINE, SPLIT_SEED
from kdlab.study.networks import Networks
from kdlab.study.task import Part, Task, Training, make_full_lesson


class _TextStyle(NamedTuple):
    """Tokenisation of the texts of a task, and the sizes of its parts."""

    characters: bool
    vocabulary: int
    length: int
    parts: tuple[int, int, int] = (2048, 1024, 2048)


TEXTS: dict[str, tuple[Callable[[], Texts], _TextStyle]] = {
    "languages": (packaged.languages, _TextStyle(True, 96, 16)),
    "verses": (packaged.verses, _TextStyle(False, 2000, 24)),
}
"""Tasks that have networks of their own, for studies without ``--student``."""
IMAGES = ("mnist5k",)


def load(
    name: str, *, data_dir: Path | None = None, networks: Networks | None = None
) -> Task:
    """Makes a task.

    Args:
        name: ``mnist5k``, a task of :data:`OFFLINE`, or a set of texts that TFDS
            prepared in `data_dir`, for example ``glue/sst2``.
        data_dir: Folder of archives and prepared sets.
        networks: Sizes of the encoders of a text task; None: ``languages`` and
            ``verses`` have networks of their own, others the default sizes.

    Raises:
        ValueError: If there is no task of that name.
        FileNotFoundError: If texts are missing; the message says how to get them.
        ModuleNotFoundError: If the package with the texts is not installed.
    """
    if name in IMAGES:
        if networks is not None:
            raise ValueError(
                f"--task {name} has networks of its own; leave --student and "
                "--teacher-weights out."
            )
        return _digits(name)
    if name in TEXTS and networks is None:
        read, style = TEXTS[name]
        return _text_task(name, *encoder_tasks.split(read(), style.parts), style)
    sizes = networks or Networks()
    if name in OFFLINE:
        return encoder_tasks.load_offline(name, data_dir, sizes)
    if name == "glue/ax":
        raise ValueError(
            "glue/ax is a diagnostic set without labels and training examples; choose "
            "glue/mnli, whose classes it has."
        )
    if name not in PUBLISHED and name.split("/")[0] not in tfds_names():
        known = [*OFFLINE, *IMAGES, *PUBLISHED]
        hint = did_you_mean(name, known)
        raise ValueError(
            f"--task {name!r} is unknown; {hint}choose {', '.join(known)} or another "
            "set of labelled texts in TFDS."
        )
    return encoder_tasks.load_public(name, data_dir, sizes)


def _text_task(
    name: str,
    train: Texts,
    validation: Texts,
    test: Texts,
    style: _TextStyle,
) -> Task:
    tokens = Tokens(
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
        teacher=network(64, 2 if style.characters else 1, 4),
        student=network(24, 1, 2),
        teacher_training=Training(
            12, 64, "adamw", 3e-3 if style.characters else 1e-3, 1e-2
        ),
        student_training=Training(5, 64, "adamw", 1e-2, 1e-2),
        lesson=make_full_lesson(part),
    )


def _digits(name: str) -> Task:
    """Makes the task of ``kdlab distill``: 400 labels, 40 % replaced at random."""
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
        noisy = labels.copy()
        noisy[rows] = data.corrupt_labels(labels[rows], 0.4, dataset.num_classes, seed)
        return rows, noisy

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
