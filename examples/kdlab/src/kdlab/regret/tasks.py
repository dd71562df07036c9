"""The tasks of the situations: images of 14 by 14 pixels, and short texts."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab import data, models
from kdlab.models import Model
from kdlab.study import tasks
from kdlab.study.task import Part, Task, Training, make_full_lesson

SPLIT_SEED = 0  # part of the definition of the tasks
POOL = 500  # examples of which each seed draws its validation set
FASHION = 5000  # of its 60,000 training images

TASKS = ("digits", "fashion", "languages")


def load(name: str, data_dir: Path | None) -> Task:
    """Makes a task; its validation part is the pool of the validation sets.

    Args:
        name: One of :data:`TASKS`.
        data_dir: Folder that holds Fashion-MNIST.

    Raises:
        FileNotFoundError: If Fashion-MNIST is not there; the message says what to do.
    """
    if name == "languages":
        return tasks.load(name)
    if name == "digits":
        return _images(name, data.load("mnist5k"), None)
    return _images(name, data.load("fashion_mnist", data_dir=data_dir), FASHION)


def _images(name: str, dataset: data.Dataset, count: int | None) -> Task:
    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        moments = dataset.mean, dataset.std
        pixels = np.asarray(data.normalize(jnp.asarray(images), *moments))
        n, height, width, channels = pixels.shape
        # A quarter of the pixels makes a training four times faster.
        blocks = pixels.reshape(n, height // 2, 2, width // 2, 2, channels)
        return Part(blocks.mean(axis=(2, 4)), labels)

    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(len(dataset.train_labels))[:count]
    pool, rows = order[:POOL], np.sort(order[POOL:])
    train = part(dataset.train_images[rows], dataset.train_labels[rows])

    def network(model: str) -> Callable[[nnx.Rngs], Model]:
        return lambda rngs: models.create(
            model,
            num_classes=dataset.num_classes,
            image_shape=train.inputs.shape[1:],
            rngs=rngs,
        )

    return Task(
        name=name,
        train=train,
        validation=part(dataset.train_images[pool], dataset.train_labels[pool]),
        test=part(dataset.test_images, dataset.test_labels),
        num_classes=dataset.num_classes,
        teacher=network("cnn_teacher"),
        student=network("cnn_student"),
        teacher_training=Training(10, 50, "sgd", 0.05, 5e-4),
        student_training=Training(20, 50, "sgd", 0.02, 5e-4),
        lesson=make_full_lesson(train),
    )
