"""Reads MNIST and its successors from their published form, four IDX files."""

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdlab.basics.reading import reading
from kdlab.data.dataset import Dataset
from kdlab.data.sources.moments import MOMENTS

_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FILES = tuple(f"{stem}.gz" for stem in _STEMS)


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    The header is two zero bytes, the type (8 is uint8), the rank, and each length as
    a big-endian 32-bit integer.

    Args:
        path: Path of the file; it is gzipped if the suffix is ``.gz``.

    Returns:
        The array, uint8.

    Raises:
        ValueError: If it is not such a file, or is truncated.
    """
    with reading(path):
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if len(data) < 4 or data[:3] != b"\0\0\x08":
            raise ValueError("it is not an IDX file of unsigned bytes")
        rank = data[3]
        shape = tuple(np.frombuffer(data, ">u4", count=rank, offset=4).tolist())
        header = 4 + 4 * rank
        if len(data) != header + math.prod(shape):
            raise ValueError(
                f"it holds {len(data)} bytes, expected {header + math.prod(shape)} for "
                f"the shape {list(shape)}"
            )
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_files(name: str, folders: Sequence[Path]) -> Dataset | None:
    """Reads ``mnist`` or ``fashion_mnist``: 60,000 + 10,000 images, 28x28, 10 classes.

    Args:
        name: Name of the data set; the files of both have the same names.
        folders: Folders to search for all four files, in this order.

    Returns:
        The data set, or None if no folder has them.

    References:
        LeCun et al., `Gradient-based learning applied to document recognition
        <https://doi.org/10.1109/5.726791>`_, 1998

        Xiao, Rasul and Vollgraf, `Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_,
        2017
    """
    paths = _find(folders)
    if paths is None:
        return None
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    mean, std = MOMENTS[name]
    with reading(paths[0].parent):
        return Dataset(
            name=name,
            train_images=train_images[..., None],
            train_labels=train_labels.astype(np.int32),
            test_images=test_images[..., None],
            test_labels=test_labels.astype(np.int32),
            num_classes=10,
            mean=mean,
            std=std,
        )


def _find(folders: Sequence[Path]) -> list[Path] | None:
    """Returns the four files, gzipped or not, of the first folder with all of them."""
    for folder in folders:
        for suffix in (".gz", ""):
            paths = [folder / (stem + suffix) for stem in _STEMS]
            if all(path.is_file() for path in paths):
                return paths
    return None
