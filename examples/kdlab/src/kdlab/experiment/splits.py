"""The parts of a data set that a student is trained and tested on."""

from pathlib import Path
from typing import Any

from kdlab.data import Dataset, Streamed, corrupt_labels, is_streamed, subset
from kdlab.data.feed import Stream
from kdlab.data.images import ImageSource, read_labels
from kdlab.data.kept import short_name
from kdlab.data.split import Split
from kdlab.settings.parts import Data

# Random crops of large images are made where they are decoded.
HOST_AUGMENTATION = "resized_crop_flip"


def device_augmentation(data: Data) -> str:
    """The augmentation that is left for the steps."""
    on_host = is_streamed(data.dataset) and data.augment == HOST_AUGMENTATION
    return "none" if on_host else data.augment


def part(data: Data, dataset: Dataset | Streamed, seed: int) -> Dataset | Streamed:
    """The data set with the training images of one student."""
    if data.labels is None or isinstance(dataset, Streamed):
        return dataset
    return subset(dataset, data.labels, seed)


def training(data: Data, dataset: Dataset | Streamed, seed: int) -> Split | Stream:
    """The images that a student sees and their noisy labels."""
    few = part(data, dataset, seed)
    if isinstance(few, Streamed):
        crops = data.augment == HOST_AUGMENTATION
        return Stream(few.train, few.image_size, few.resize, crops, data.workers)
    labels = corrupt_labels(few.train_labels, data.noise, few.num_classes, seed)
    return Split(few.train_images, labels)


def testing(data: Data, dataset: Dataset | Streamed) -> Split | Stream:
    """The images that all students are tested on."""
    if isinstance(dataset, Dataset):
        return Split(dataset.test_images, dataset.test_labels)
    return _middles(data, dataset, dataset.test)


def whole_training(data: Data, dataset: Dataset | Streamed) -> Split | Stream:
    """All training images with their true labels, looked at as those of the test."""
    if isinstance(dataset, Dataset):
        return Split(dataset.train_images, dataset.train_labels)
    return _middles(data, dataset, dataset.train)


def _middles(data: Data, dataset: Streamed, source: ImageSource) -> Stream:
    size, resize = dataset.image_size, dataset.resize
    return Stream(source, size, resize, workers=data.workers)


def all_labels(images: Split | Stream, data: Data, runs: Path) -> Any:
    """Labels of all training images; those of a stream are kept in RUNS/labels."""
    if isinstance(images, Split):
        return images.labels
    return read_labels(images.source, runs / "labels" / short_name(data.dataset))
