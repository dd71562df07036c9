"""Data sets from four arrays: in an ``.npz`` file, or of the user's own function."""

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
    "train_labels and test_labels, whole numbers [n] from 0 on"
)


def read_npz(path: Path) -> Dataset:
    """Reads a data set from an ``.npz`` file of :data:`NAMES`.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is damaged, or its arrays are not those of a data set.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {EXPECTED} in it.")
    with reading(path), np.load(path) as content:
        arrays = dict(content)
    return from_arrays(str(path), arrays)


def open_own(name: str) -> Dataset:
    """Calls a function of the user's own for a data set.

    Args:
        name: ``MODULE:FUNCTION``. The function takes nothing and returns a
            :class:`Dataset`, or a mapping of :data:`NAMES` to arrays.

    Raises:
        ValueError: If the function is not there, or returns something else.
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
    """Makes a data set of four arrays; the classes are those of the training labels.

    Args:
        name: What to call it.
        arrays: Images and labels, by :data:`NAMES`.

    Raises:
        ValueError: If one is missing, or is of another shape, type or range.

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
            "uint8 [n, h, w, c] or [n, h, w] with values from 0 to 255. Images from 0 "
            'to 1 become such by `(255 * images).round().astype("uint8")`.'
        )
    if not images.size:
        raise UserError(f"{name}: there are no {split}_images.")
    return images[..., None] if images.ndim == 3 else images


def _labels(name: str, split: str, labels: np.ndarray) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(
            f"{name}: {split}_labels are {labels.dtype}{list(labels.shape)}, expected "
            "whole numbers [n], the number of the class of each image from 0 on."
        )
    return labels.astype(np.int32)
