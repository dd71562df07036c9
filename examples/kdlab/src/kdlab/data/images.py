"""Encoded images with labels, independent of how they are stored."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsIndex

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from kdlab.basics.reading import UserError, reading
from kdlab.data.array_cache import load_or_compute
from kdlab.data.dataset import Dataset, channel_moments
from kdlab.data.decoding import decode, resize_and_crop


class EncodedImage(NamedTuple):
    """An encoded image file in memory with its class."""

    data: bytes
    label: int


class ImageSource(Protocol):
    """Random access to the encoded images of one split, picklable for workers."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def mode(self) -> str:
        """Mode to decode to: ``RGB``, or ``L`` for greyscale."""
        ...

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the images and their labels."""
        ...

    def __getitem__(self, index: SupportsIndex) -> EncodedImage:
        """Returns one image and its label."""
        ...

    def where(self, index: int) -> str:
        """Describes the location of an image, for messages."""
        ...


def read_labels(source: ImageSource, path: Path) -> Int32[np.ndarray, " n"]:
    """Reads the labels of all images, once from the source and then from a file.

    Args:
        source: The images.
        path: File of the labels; the fingerprint of the source is appended to its name.

    Returns:
        Labels in the order of the source.
    """

    def read() -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(16) as pool:
            labels = pool.map(lambda i: source[i].label, range(len(source)))
            return {"labels": np.fromiter(labels, np.int32, len(source))}

    path = path.with_name(f"{path.name}-{source.fingerprint}.npz")
    return load_or_compute(path, read)["labels"]


def to_dataset(
    name: str,
    train: ImageSource,
    test: ImageSource,
    *,
    image_size: int | None = None,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """Decodes two splits into memory.

    Args:
        name: Name of the data set.
        train: The training split.
        test: The test split.
        image_size: See `decode`; needed if the images differ in size.
        moments: Mean and standard deviation per channel; None: computed.

    Raises:
        ValueError: If the images differ in size and no size is given.
    """
    train_images, train_labels = _decode_all(name, train, image_size)
    test_images, test_labels = _decode_all(name, test, image_size)
    mean, std = moments or channel_moments(train_images)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=train.num_classes,
        mean=mean,
        std=std,
    )


def resize(dataset: Dataset, size: int) -> Dataset:
    """Resizes all images to squares.

    Args:
        dataset: The images.
        size: As `image_size` of :func:`~kdlab.data.decoding.decode`.

    Returns:
        The data set with images ``[n, size, size, c]`` and the same `mean` and `std`.

    Examples:
        >>> from kdlab.data import load
        >>> resize(load("digits"), 4).train_images.shape
        (1297, 4, 4, 1)
    """
    return dataclasses.replace(
        dataset,
        train_images=_resize_all(dataset.train_images, size),
        test_images=_resize_all(dataset.test_images, size),
    )


def _resize_all(
    images: UInt8[np.ndarray, "n h w c"], size: int
) -> UInt8[np.ndarray, "n size size c"]:
    resized = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    # Channel by channel, because Pillow knows only some numbers of them.
    for source, target in zip(images, resized, strict=True):
        for channel in range(images.shape[-1]):
            plane = Image.fromarray(source[..., channel])
            target[..., channel] = resize_and_crop(plane, size, size)
    return resized


def _decode_all(
    name: str, source: ImageSource, image_size: int | None
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    def one(index: int) -> UInt8[np.ndarray, "h w c"]:
        data, labels[index] = source[index]
        with reading(source.where(index)):
            return decode(data, source.mode, image_size)

    labels = np.empty(len(source), np.int32)
    shape = one(0).shape
    images = np.empty((len(source), *shape), np.uint8)
    for i in range(len(source)):
        image = one(i)
        if image.shape != shape:
            raise UserError(
                f"{name}: {source.where(i)} is {image.shape}, {source.where(0)} is "
                f"{shape}; pass image_size (--image-size) to resize them, or stream "
                "the data set"
            )
        images[i] = image
    return images, labels
