"""Data sets made of four arrays, from an ``.npz`` file or a user's function."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdlab.basics.importing import import_function
from kdlab.basics.reading import UserError, reading
from kdlab.data.dataset import Dataset, channel_moments

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
EXPECTED = (
    "expected train_images and test_images, uint8 [n, h, w, c] or [n, h, w], and "
    "train_labels and test_labels, integers [n] counting from 0"
)


def read_npz(path: Path) -> Dataset:
    """Reads a data set from an ``.npz`` file with the arrays :data:`NAMES`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or its arrays do not form a data set.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {EXPECTED}.")
    with reading(path), np.load(path) as content:
        arrays = dict(content)
    return from_arrays(str(path), arrays)


def open_user_dataset(name: str) -> Dataset:
    """Gets a data set from a user's function.

    Args:
        name: ``MODULE:FUNCTION``. The function takes no arguments and returns a
            :class:`Dataset`, or a mapping from :data:`NAMES` to arrays.

    Raises:
        ValueError: If the function does not exist or returns something else.
    """
    found = import_function(name)()
    if isinstance(found, Dataset):
        return found
    if not isinstance(found, Mapping):
        raise UserError(
            f"{name} returned {type(found).__name__}, expected a kdlab.data.Dataset "
            f"or a mapping: {EXPECTED}."
        )
    return from_arrays(name, found)


def from_arrays(name: str, arrays: Mapping[str, Any]) -> Dataset:
    """Makes a data set from four arrays, with the classes of the training labels.

    Args:
        name: Name of the data set.
        arrays: Images and labels by :data:`NAMES`.

    Raises:
        ValueError: If one is missing or has a wrong shape, dtype or range.

    Examples:
        >>> images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 0])
        >>> arrays = {"train_images": images, "train_labels": labels}
        >>> arrays |= {"test_images": images, "test_labels": labels}
        >>> data = from_arrays("mine", arrays)
        >>> data.image_shape, data.num_classes
        ((8, 8, 1), 3)
    """
    missing = [key for key in NAMES if key not in arrays]
    if missing:
        there = ", ".join(map(str, arrays)) or "nothing"
        raise UserError(
            f"{name} lacks {', '.join(missing)}: {EXPECTED}. It has {there}."
        )
    images = {s: _images(name, s, np.asarray(arrays[f"{s}_images"])) for s in _SPLITS}
    labels = {s: _labels(name, s, np.asarray(arrays[f"{s}_labels"])) for s in _SPLITS}
    mean, std = channel_moments(images["train"])
    return Dataset(
        name=name,
        train_images=images["train"],
        train_labels=labels["train"],
        test_images=images["test"],
        test_labels=labels["test"],
        num_classes=int(labels["train"].max(initial=0)) + 1,
        mean=mean,
        std=std,
    )


_SPLITS = ("train", "test")


def _images(name: str, split: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{name}: {split}_images are {images.dtype}{list(images.shape)}, expected "
            "uint8 [n, h, w, c] or [n, h, w] with values from 0 to 255. Convert images "
            'from 0 to 1 by `(255 * images).round().astype("uint8")`.'
        )
    if not images.size:
        raise UserError(f"{name}: there are no {split}_images.")
    return images[..., None] if images.ndim == 3 else images


def _labels(name: str, split: str, labels: np.ndarray) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(
            f"{name}: {split}_labels are {labels.dtype}{list(labels.shape)}, expected "
            "integers [n], the class of each image, counting from 0."
        )
    return labels.astype(np.int32)
