"""A task of 64 digits and two small MLPs, for which a training takes milliseconds."""

import numpy as np

from kdlab import models
from kdlab.data import load
from kdlab.study import task


def tiny(name="tiny"):
    dataset = load("digits")
    images = (dataset.train_images[:192] / 16 / 8 - 1).astype(np.float32)
    labels = dataset.train_labels[:192]

    def part(i):
        chosen = slice(64 * i, 64 * (i + 1))
        return task.Part(images[chosen], labels[chosen])

    def network(rngs):
        shape = {"num_classes": 10, "image_shape": (8, 8, 1)}
        return models.create("mlp", rngs=rngs, **shape)

    training = task.Training(3, 16, "sgd", 0.05, 0.0)
    return task.Task(
        name=name,
        train=part(0),
        validation=part(1),
        test=part(2),
        num_classes=10,
        teacher=network,
        student=network,
        teacher_training=training,
        student_training=training,
        lesson=task.make_full_lesson(part(0)),
    )
