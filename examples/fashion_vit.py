"""Small vision transformers on Fashion-MNIST, for `kdlab distill`.

The commands are in docs/transformers.md. The four files of the data set are read from
the folder in the environment variable FASHION_MNIST, or from where the Debian package
`dataset-fashion-mnist` installs them.
"""

import dataclasses
import functools
import os

import numpy as np
from flax import nnx

from kdlab.data import Dataset, load
from kdlab.models._blocks import Layers
from kdlab.models.transformers.deit import DeiT

TESTED = 2000
SMALL, WIDE, LARGE = (48, 2, 2), (96, 4, 3), (128, 5, 4)  # channels, blocks and heads


def images() -> Dataset:
    """Loads all training images and the first 2,000 test images."""
    dataset = load("fashion_mnist", data_dir=os.environ.get("FASHION_MNIST"))
    return dataclasses.replace(
        dataset,
        test_images=dataset.test_images[:TESTED],
        test_labels=dataset.test_labels[:TESTED],
    )


def padded_images() -> Dataset:
    """Pads the images to 32 pixels."""
    dataset = images()

    def frame(images: np.ndarray) -> np.ndarray:
        return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))

    return dataclasses.replace(
        dataset,
        train_images=frame(dataset.train_images),
        test_images=frame(dataset.test_images),
    )


def _make(
    size: tuple[int, int, int],
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    distilled: bool,
    scan: bool = False,
) -> DeiT:
    """Makes a DeiT that sees patches of 4 by 4 pixels."""
    return DeiT(
        *size,
        distilled=distilled,
        patch=4,
        num_classes=num_classes,
        image_shape=image_shape,
        layers=Layers(rngs),
        scan=scan,
    )


# With a distillation token, and without one, to learn from labels alone.
student = functools.partial(_make, SMALL, distilled=True)
plain_student = functools.partial(_make, SMALL, distilled=False)
wide_student = functools.partial(_make, WIDE, distilled=True)
plain_wide_student = functools.partial(_make, WIDE, distilled=False)
large_student = functools.partial(_make, LARGE, distilled=True)
plain_large_student = functools.partial(_make, LARGE, distilled=False)
