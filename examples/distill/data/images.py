"""Encoded images with labels, wherever they are stored, and how to decode them."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsIndex

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from examples.distill.data.dataset import Dataset, channel_moments

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class EncodedImage(NamedTuple):
    """A JPEG or PNG file in memory, and its class."""

    data: bytes
    label: int


class ImageSource(Protocol):
    """Random access to the encoded images of one split; picklable for workers."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def mode(self) -> str:
        """What to decode to: ``RGB``, or ``L`` for grey."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: SupportsIndex) -> EncodedImage:
        """One image and its label."""
        ...


class FolderSource:
    """Images in one folder per class, at any depth below it.

    Args:
        root: Folder of the class folders. Classes are numbered in the order of their
            names.
        class_names: The classes to expect, those of the training split.

    Raises:
        FileNotFoundError: If there is no image below `root`.
        ValueError: If `root` has a class that is not in `class_names`.
    """

    mode = "RGB"

    def __init__(self, root: Path, class_names: list[str] | None = None):
        found = sorted(p.name for p in root.iterdir() if p.is_dir())
        self.class_names = found if class_names is None else class_names
        self.num_classes = len(self.class_names)
        unknown = sorted(set(found) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{root} has the class folder {unknown[0]!r}, which the training split "
                "lacks; both need the same classes"
            )
        self._files = [
            (path, label)
            for label, name in enumerate(self.class_names)
            for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in _SUFFIXES
        ]
        if not self._files:
            raise FileNotFoundError(
                f"no image in {root}; put one folder per class there, with images "
                f"({', '.join(sorted(_SUFFIXES))})"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._files)

    def __getitem__(self, index: SupportsIndex) -> EncodedImage:
        """One image and its label."""
        path, label = self._files[index.__index__()]
        return EncodedImage(path.read_bytes(), label)


def open_folder(root: Path, split: str) -> FolderSource:
    """Open ``root/train``, or for the split ``test`` whichever of val and test exists.

    Args:
        root: Holds ``train`` and one of ``val``, ``validation`` and ``test``.
        split: ``train`` or ``test``.

    Raises:
        FileNotFoundError: If one of them is absent.
    """
    train = root / "train"
    tests = [root / name for name in ("test", "val", "validation")]
    test = next((path for path in tests if path.is_dir()), None)
    if not train.is_dir() or test is None:
        raise FileNotFoundError(
            f"folder:{root}: expected {train} and one of {', '.join(map(str, tests))}, "
            "each with one folder of images per class"
        )
    source = FolderSource(train)
    return source if split == "train" else FolderSource(test, source.class_names)


def read_labels(source: ImageSource, path: Path) -> Int32[np.ndarray, " n"]:
    """Labels of all images, which takes reading them all once: then from a file.

    Args:
        source: The images.
        path: A ``.npy`` file where the labels are kept, for this source alone.

    Returns:
        Labels in the order of the source.
    """
    if path.is_file():
        return np.load(path)
    with ThreadPoolExecutor(16) as pool:
        labels = pool.map(lambda i: source[i].label, range(len(source)))
        array = np.fromiter(labels, np.int32, len(source))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: an interrupted run leaves no half file to be read later.
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)
    return array


def decode(
    data: bytes, mode: str, image_size: int | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """Decode an image, and resize it if a size is given.

    Args:
        data: The encoded image.
        mode: ``RGB`` or ``L``.
        image_size: Resize the shorter side to this, bilinear with antialiasing, and cut
            the middle out of the longer one.

    Returns:
        ``[h, w, c]``, with one channel if `mode` is ``L``.
    """
    image = open_image(data, mode)
    if image_size is not None:
        image = resize_and_crop(image, image_size, image_size)
    return to_array(image)


def open_image(data: bytes, mode: str) -> Image.Image:
    """Decode to a Pillow image in the given mode."""
    with Image.open(io.BytesIO(data)) as file:
        return file.convert(mode)


def resize_and_crop(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Resize the shorter side to `resize`, then cut out the middle `size` x `size`.

    Bilinear with antialiasing; both steps in one, so nothing is rounded in between.
    """
    width, height = image.size
    side = min(width, height) * size / resize
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )


def to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """Pixels with a channel axis, also of a grey image."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def to_dataset(
    name: str,
    train: ImageSource,
    test: ImageSource,
    *,
    image_size: int | None = None,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """Decode two splits into memory.

    Args:
        name: Of the data set.
        train: The training split.
        test: The test split.
        image_size: See `decode`; needed if the images differ in size.
        moments: Mean and deviation per channel; computed if None.

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


def _decode_all(
    name: str, source: ImageSource, image_size: int | None
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    shape = decode(source[0].data, source.mode, image_size).shape
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for i in range(len(source)):
        data, labels[i] = source[i]
        image = decode(data, source.mode, image_size)
        if image.shape != shape:
            raise ValueError(
                f"{name}: image {i} is {image.shape}, image 0 is {shape}; pass "
                "image_size to bring them to one size, or read the set as a stream"
            )
        images[i] = image
    return images, labels
