"""A small vision transformer on Fashion-MNIST, for `kdlab distill`.

The commands are in docs/transformers.md. The four files of the data set are read from
the folder in the environment variable FASHION_MNIST, or from where the Debian package
`dataset-fashion-mnist` installs them.
"""

import dataclasses
import os
from typing import Any

import numpy as np
from flax import nnx

from kdlab.data import Dataset, load
from kdlab.models._blocks import Layers
from kdlab.models.transformers.deit import DeiT

TESTED = 2000


def images() -> Dataset:
    """Pads to 32 pixels all training images and the first 2,000 test images."""
    folder = os.environ.get("FASHION_MNIST")
    dataset = load("fashion_mnist", data_dir=folder)

    def frame(images: np.ndarray) -> np.ndarray:
        return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))

    return dataclasses.replace(
        dataset,
        train_images=frame(dataset.train_images),
        test_images=frame(dataset.test_images[:TESTED]),
        test_labels=dataset.test_labels[:TESTED],
    )


def student(**options: Any) -> DeiT:
    """Makes a DeiT with a distillation token."""
    return _make(distilled=True, **options)


def plain_student(**options: Any) -> DeiT:
    """Makes a DeiT without one, to learn from labels alone."""
    return _make(distilled=False, **options)


def _make(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    distilled: bool,
) -> DeiT:
    """Makes a network of 64 patches with 48 channels, two blocks and two heads."""
    return DeiT(
        *(48, 2, 2),
        distilled=distilled,
        patch=4,
        num_classes=num_classes,
        image_shape=image_shape,
        layers=Layers(rngs),
    )
