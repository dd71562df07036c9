"""Selects the images that a student is trained and tested on."""

from pathlib import Path
from typing import Any

from kdlab.data import (
    AUGMENTATIONS,
    Dataset,
    Streamed,
    corrupt_labels,
    is_streamed,
    subset,
)
from kdlab.data.array_cache import short_name
from kdlab.data.augmentation.mixing import Mixing
from kdlab.data.augmentation.table import AFTER_CROP, Augmentation
from kdlab.data.feed import Stream
from kdlab.data.images import ImageSource, read_labels
from kdlab.data.split import Split
from kdlab.settings.augmentation import Augmentation as Settings
from kdlab.settings.parts import Data


def device_augmentation(data: Data) -> Augmentation:
    """Returns the augmentation that remains to be done on the device.

    Random crops of large images are taken while they are decoded.
    """
    on_host = is_streamed(data.dataset) and data.augment in AFTER_CROP
    return (AFTER_CROP if on_host else AUGMENTATIONS)[data.augment]


def make_mixing(settings: Settings) -> Mixing:
    """Returns how the settings mix a batch."""
    return Mixing(
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        probability=settings.mix_probability,
        switch=settings.mix_switch,
        smoothing=settings.smoothing,
        erasing=settings.erasing,
    )


def select_images(
    data: Data, dataset: Dataset | Streamed, seed: int
) -> Dataset | Streamed:
    """Returns the data set with the training images of one student."""
    if data.labels is None or isinstance(dataset, Streamed):
        return dataset
    return subset(dataset, data.labels, seed)


def training_split(
    data: Data, dataset: Dataset | Streamed, seed: int
) -> Split | Stream:
    """Returns the training images of a student with their noisy labels."""
    few = select_images(data, dataset, seed)
    if isinstance(few, Streamed):
        crops = data.augment in AFTER_CROP
        return _stream(data, few, few.train)._replace(crops=crops)
    labels = corrupt_labels(few.train_labels, data.noise, few.num_classes, seed)
    return Split(few.train_images, labels)


def test_split(data: Data, dataset: Dataset | Streamed) -> Split | Stream:
    """Returns the test images."""
    if isinstance(dataset, Dataset):
        return Split(dataset.test_images, dataset.test_labels)
    return _stream(data, dataset, dataset.test)


def full_training_split(data: Data, dataset: Dataset | Streamed) -> Split | Stream:
    """Returns all training images with true labels, prepared like test images."""
    if isinstance(dataset, Dataset):
        return Split(dataset.train_images, dataset.train_labels)
    return _stream(data, dataset, dataset.train)


def _stream(data: Data, dataset: Streamed, source: ImageSource) -> Stream:
    return Stream(
        source,
        dataset.image_size,
        dataset.resize,
        workers=data.workers,
        interpolation=data.interpolation,
    )


def read_all_labels(images: Split | Stream, data: Data, runs: Path) -> Any:
    """Returns all training labels; those of a stream are cached in RUNS/labels."""
    if isinstance(images, Split):
        return images.labels
    return read_labels(images.source, runs / "labels" / short_name(data.dataset))
