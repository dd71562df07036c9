"""Small vision transformers on Fashion-MNIST, for `kdlab distill`.

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


def student(**options: Any) -> DeiT:
    """Makes a DeiT of two blocks with a distillation token."""
    return _make(SMALL, distilled=True, **options)


def plain_student(**options: Any) -> DeiT:
    """Makes one without that token, to learn from labels alone."""
    return _make(SMALL, distilled=False, **options)


def wide_student(**options: Any) -> DeiT:
    """Makes a DeiT of four blocks, twice as wide, with a distillation token."""
    return _make(WIDE, distilled=True, **options)


def plain_wide_student(**options: Any) -> DeiT:
    """Makes one without that token, to learn from labels alone."""
    return _make(WIDE, distilled=False, **options)


def large_student(**options: Any) -> DeiT:
    """Makes a DeiT of a million parameters, with a distillation token."""
    return _make(LARGE, distilled=True, **options)


def plain_large_student(**options: Any) -> DeiT:
    """Makes one without that token, to learn from labels alone."""
    return _make(LARGE, distilled=False, **options)


def _make(
    size: tuple[int, int, int],
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    distilled: bool,
    scan: bool = False,
) -> DeiT:
    """Makes a network that sees patches of 4 by 4 pixels."""
    return DeiT(
        *size,
        distilled=distilled,
        patch=4,
        num_classes=num_classes,
        image_shape=image_shape,
        layers=Layers(rngs),
        scan=scan,
    )
