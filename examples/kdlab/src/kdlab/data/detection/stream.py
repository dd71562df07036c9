"""Grain pipelines of images with boxes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from kdlab.basics.reading import reading
from kdlab.data.decoding import open_image
from kdlab.data.detection.augment import Augmentation, resize
from kdlab.data.detection.batch import DetectionBatch, Targets
from kdlab.data.detection.source import DetectionSource, Objects

_THREADS = grain.ReadOptions(num_threads=4, prefetch_buffer_size=32)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shapes of batches.

    Attributes:
        multiple: Heights and widths are padded to a multiple of it. Each padded size
            is compiled once. The images of the COCO recipe (sides are multiples of 16,
            the short one is 480 to 800, aspects up to 2) have about 1,600 sizes; padded
            to multiples of 32 there are 435, of 64 there are 120 and of 128 there are
            44, for 2, 7 and 15 % more pixels. GroupNorm averages over padding and
            windows attend to it, so evaluate with the multiple of the training.
        objects: Number of entries for the objects of an image; more are left out.
    """

    multiple: int
    objects: int


class _Example(NamedTuple):
    """One image before it is padded."""

    pixels: np.ndarray
    objects: Objects
    size: tuple[int, int]
    index: int


def train_stream(
    source: DetectionSource,
    shape: Shape,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation | None = None,
    start: int = 0,
) -> grain.DatasetIterator[DetectionBatch]:
    """Returns endless shuffled batches.

    Each epoch is a new permutation. An image and its augmentation are functions of the
    seed and the position alone, so that a stream from `start` equals the rest of one
    from the beginning.

    Args:
        source: The images.
        shape: Shapes of batches.
        batch_size: Images per batch.
        seed: Seed of order and augmentation.
        augment: The augmentation; None: images as they are.
        start: Number of batches to skip.
    """

    def read(index: int, rng: np.random.Generator) -> _Example:
        def change(image: Image.Image, objects: Objects) -> tuple:
            return augment(image, objects, rng) if augment else (image, objects)

        return _read(source, index, change)

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    # Skipped after the random numbers are assigned, so that they stay the same.
    examples = order.random_map(read)[start * batch_size :]
    return _iterate(examples, shape, batch_size)


def eval_stream(
    source: DetectionSource,
    shape: Shape,
    *,
    batch_size: int,
    side: int | None = None,
    longest: int | None = None,
) -> grain.DatasetIterator[DetectionBatch]:
    """Returns every image once, in order; the last batch is filled with copies.

    Args:
        source: The images.
        shape: Shapes of batches.
        batch_size: Images per batch.
        side: Length of the shorter side; None: images as they are.
        longest: Maximum length of the longer side.
    """
    total = len(source)

    def read(position: int) -> _Example:
        def change(image: Image.Image, objects: Objects) -> tuple:
            if side is None:
                return image, objects
            return resize(image, objects, side, longest)

        example = _read(source, position % total, change)
        return example if position < total else example._replace(index=-1)

    padded = math.ceil(total / batch_size) * batch_size
    return _iterate(grain.MapDataset.range(padded).map(read), shape, batch_size)


def _iterate(
    examples: grain.MapDataset, shape: Shape, batch_size: int
) -> grain.DatasetIterator[DetectionBatch]:
    def join(rows: Sequence[_Example]) -> DetectionBatch:
        return pad(rows, shape)

    dataset = examples.to_iter_dataset(_THREADS)
    return iter(dataset.batch(batch_size, drop_remainder=True, batch_fn=join))


def _read(
    source: DetectionSource,
    index: int,
    change: Callable[[Image.Image, Objects], tuple[Image.Image, Objects]],
) -> _Example:
    data, objects = source[index]
    with reading(source.where(index)):
        image = open_image(data, "RGB")
        size = image.height, image.width
        image, objects = change(image, objects)
    return _Example(np.asarray(image), objects, size, index)


def pad(rows: Sequence[_Example], shape: Shape) -> DetectionBatch:
    """Pads images and objects to the shapes of a batch.

    Boxes become fractions of the image before padding.
    """
    step, count = shape.multiple, len(rows)
    height, width = (
        max(math.ceil(row.pixels.shape[axis] / step) * step for row in rows)
        for axis in (0, 1)
    )
    images = np.zeros((count, height, width, 3), np.uint8)
    mask = np.ones((count, height, width), bool)
    boxes = np.full((count, shape.objects, 4), 0.5, np.float32)
    labels = np.zeros((count, shape.objects), np.int32)
    present = np.zeros((count, shape.objects), bool)
    for i, row in enumerate(rows):
        h, w = row.pixels.shape[:2]
        images[i, :h, :w], mask[i, :h, :w] = row.pixels, False
        n = min(len(row.objects.labels), shape.objects)
        corners = row.objects.boxes[:n] / np.array([w, h, w, h], np.float32)
        low, high = corners[:, :2], corners[:, 2:]
        boxes[i, :n] = np.concatenate([(low + high) / 2, high - low], axis=1)
        labels[i, :n], present[i, :n] = row.objects.labels[:n], True
    sizes = np.array([row.size for row in rows], np.int32)
    indices = np.array([row.index for row in rows], np.int32)
    return DetectionBatch(images, mask, Targets(boxes, labels, present), sizes, indices)
