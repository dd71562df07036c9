"""Reads CIFAR-10 and CIFAR-100 from the published archives."""

import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from kdlab.basics.reading import UserError, reading
from kdlab.data.dataset import Dataset
from kdlab.data.sources.moments import MOMENTS

_SIDE = 32


class _Layout(NamedTuple):
    """The differences between the two data sets."""

    num_classes: int
    binary: str  # name of the archive
    binary_members: tuple[tuple[str, ...], tuple[str, ...]]  # train, test
    label_bytes: int  # before each image; the last one is the class
    python: str
    python_members: tuple[tuple[str, ...], tuple[str, ...]]
    label_key: bytes


_LAYOUTS = {
    "cifar10": _Layout(
        num_classes=10,
        binary="cifar-10-binary.tar.gz",
        binary_members=(
            tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
            ("cifar-10-batches-bin/test_batch.bin",),
        ),
        label_bytes=1,
        python="cifar-10-python.tar.gz",
        python_members=(
            tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
            ("cifar-10-batches-py/test_batch",),
        ),
        label_key=b"labels",
    ),
    "cifar100": _Layout(
        num_classes=100,
        binary="cifar-100-binary.tar.gz",
        binary_members=(
            ("cifar-100-binary/train.bin",),
            ("cifar-100-binary/test.bin",),
        ),
        label_bytes=2,  # coarse, fine
        python="cifar-100-python.tar.gz",
        python_members=(("cifar-100-python/train",), ("cifar-100-python/test",)),
        label_key=b"fine_labels",
    ),
}

ARCHIVES = {name: (x.binary, x.python) for name, x in _LAYOUTS.items()}


def read_archives(name: str, data_dir: Path) -> Dataset | None:
    """Reads ``cifar10`` or ``cifar100`` from either archive of its authors.

    Args:
        name: ``cifar10`` or ``cifar100`` (fine labels).
        data_dir: Folder with the binary or the Python version; the binary one is
            preferred, as it is ten times as fast to read.

    Returns:
        The data set, or None if there is neither archive.

    Raises:
        ValueError: If the archive is damaged or incomplete.

    References:
        Krizhevsky, `Learning Multiple Layers of Features from Tiny Images
        <https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf>`_, 2009
    """
    layout = _LAYOUTS[name]
    if (data_dir / layout.binary).is_file():
        archive, splits = data_dir / layout.binary, layout.binary_members

        def parse(file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
            return _parse_binary(file, layout.label_bytes)

    elif (data_dir / layout.python).is_file():
        archive, splits = data_dir / layout.python, layout.python_members

        def parse(file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
            return _parse_python(file, layout.label_key)

    else:
        return None
    mean, std = MOMENTS[name]
    with reading(archive):
        parts = _read_members(archive, splits[0] + splits[1], parse)
        train_images, train_labels = _join(parts, splits[0])
        test_images, test_labels = _join(parts, splits[1])
        return Dataset(
            name=name,
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            num_classes=layout.num_classes,
            mean=mean,
            std=std,
        )


def _read_members(
    archive: Path,
    members: tuple[str, ...],
    parse: Callable[[IO[bytes]], tuple[np.ndarray, np.ndarray]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parses members in the order of the archive, since going back unpacks it again."""
    parts = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in members else None
            if file is not None:
                parts[member.name] = parse(file)
        while tar.fileobj is not None and tar.fileobj.read(2**20):
            pass  # gzip compares the checksum at the end
    absent = [member for member in members if member not in parts]
    if absent:
        raise UserError(
            f"{archive} lacks {', '.join(absent)}; download it again from "
            "https://www.cs.toronto.edu/~kriz/cifar.html"
        )
    return parts


def _parse_binary(file: IO[bytes], label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Parses rows of labels and 3072 pixels, red ones first."""
    rows = np.frombuffer(file.read(), np.uint8)
    rows = rows.reshape(-1, label_bytes + 3 * _SIDE * _SIDE)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _parse_python(file: IO[bytes], label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Parses a pickled dictionary of the same rows."""
    content = _ArrayUnpickler(file, encoding="bytes").load()
    return content[b"data"], np.asarray(content[label_key])


def _join(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]], members: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.concatenate([parts[member][0] for member in members])
    labels = np.concatenate([parts[member][1] for member in members])
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds only NumPy arrays, so that no code can be run."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy", "ndarray"):
                return np.ndarray
            case ("numpy", "dtype"):
                return np.dtype
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _empty_array
            case ("_codecs", "encode"):  # used by Python 3 for bytes in protocol 2
                return _encode
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in CIFAR")


def _empty_array(*_: object) -> np.ndarray:
    """Returns an array for `ndarray.__setstate__` to fill."""
    return np.ndarray((0,), np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
