"""What a student sees of a data set, in memory or streamed."""

from typing import Any

from kdlab.data import Dataset, Streamed, corrupt_labels, subset
from kdlab.data.feed import Stream
from kdlab.data.images import ImageSource, read_labels
from kdlab.data.kept import short_name
from kdlab.models.network import Split
from kdlab.settings.config import Config

# Random crops of large images are made where they are decoded.
HOST_AUGMENTATION = "resized_crop_flip"


def device_augmentation(config: Config) -> str:
    """The augmentation that is left for the steps."""
    on_host = config.streamed and config.augment == HOST_AUGMENTATION
    return "none" if on_host else config.augment


def part(config: Config, dataset: Dataset | Streamed, seed: int) -> Dataset | Streamed:
    """The data set with the training images of one student."""
    if config.labels is None or isinstance(dataset, Streamed):
        return dataset
    return subset(dataset, config.labels, seed)


def training(config: Config, dataset: Dataset | Streamed, seed: int) -> Split | Stream:
    """The images that a student sees and their noisy labels."""
    few = part(config, dataset, seed)
    if isinstance(few, Streamed):
        crops = config.augment == HOST_AUGMENTATION
        return Stream(few.train, few.image_size, few.resize, crops, config.workers)
    labels = corrupt_labels(few.train_labels, config.noise, few.num_classes, seed)
    return Split(few.train_images, labels)


def testing(config: Config, dataset: Dataset | Streamed) -> Split | Stream:
    """The images that all students are tested on."""
    if isinstance(dataset, Dataset):
        return Split(dataset.test_images, dataset.test_labels)
    return _middles(config, dataset, dataset.test)


def whole_training(config: Config, dataset: Dataset | Streamed) -> Split | Stream:
    """All training images with their true labels, looked at as those of the test."""
    if isinstance(dataset, Dataset):
        return Split(dataset.train_images, dataset.train_labels)
    return _middles(config, dataset, dataset.train)


def _middles(config: Config, dataset: Streamed, source: ImageSource) -> Stream:
    size, resize = dataset.image_size, dataset.resize
    return Stream(source, size, resize, workers=config.workers)


def all_labels(config: Config, data: Split | Stream) -> Any:
    """Labels of all training images; those of a stream are kept in RUNS/labels."""
    if isinstance(data, Split):
        return data.labels
    path = config.runs / "labels" / short_name(config.dataset)
    return read_labels(data.source, path)
