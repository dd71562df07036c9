"""Grain pipelines for images that do not fit in memory: the ImageNet recipe."""

import math
from typing import Any, NamedTuple, SupportsIndex

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Float32, Int32, UInt8

from kdlab.basics.reading import reading
from kdlab.data.decoding import FILTERS, open_image, resize_and_crop, to_array
from kdlab.data.images import EncodedImage, ImageSource


class ImageBatch(NamedTuple):
    """Images of one process with labels, sample weights (0 for padding) and indices."""

    images: UInt8[np.ndarray, "b h w c"]
    labels: Int32[np.ndarray, " b"]
    weights: Float32[np.ndarray, " b"]
    indices: Int32[np.ndarray, " b"]


# Image, label, weight, index.
_Example = tuple[UInt8[np.ndarray, "h w c"], np.int32, np.float32, np.int32]

_RATIOS = 3 / 4, 4 / 3  # smallest and largest ratio of width to height


def train_stream(
    source: ImageSource,
    *,
    batch_size: int,
    seed: int,
    image_size: int = 224,
    scale: tuple[float, float] = (0.08, 1.0),
    resize: int | None = None,
    start: int = 0,
    process_index: int | None = None,
    process_count: int | None = None,
    num_workers: int = 0,
    repeats: int = 1,
    interpolation: str = "bilinear",
) -> grain.DatasetIterator[ImageBatch]:
    """Returns endless shuffled batches of random resized crops, half of them mirrored.

    With `resize`, it returns central crops instead, for augmentation on the device.

    Each epoch is a new permutation, of which the processes take alternate images. An
    image and its crop are functions of the seed and the position alone, so a stream
    from `start` equals the rest of one from the beginning bit for bit, with any number
    of workers. Alternatively ``get_state()`` returns a small JSON dictionary, from
    which ``set_state()`` of an iterator with the same arguments resumes.

    Args:
        source: See `open_images`.
        batch_size: Images per batch in this process.
        seed: Seed of the order and the crops; the same in all processes.
        image_size: Side of the crops.
        scale: Smallest and largest fraction of the area; ratios are from 3/4 to 4/3.
        resize: Length of the shorter side before the centre is cropped, as in
            evaluation; None: random crops.
        start: Number of batches to skip, those before a checkpoint.
        process_index: Index of this process; None: that of JAX.
        process_count: Number of processes; that of JAX if None.
        num_workers: Processes that decode ahead; 0: threads of this process.
        repeats: Times that an image is drawn in a row, with another crop each time; the
            epoch keeps its length.
        interpolation: ``bilinear`` or ``bicubic`` resizing.

    Returns:
        An iterator of batches with `get_state` and `set_state`.

    References:
        Szegedy et al., `Going Deeper with Convolutions
        <https://arxiv.org/abs/1409.4842>`_, 2014, section 6
    """
    index, count = _process(process_index, process_count)

    def crop(numbered: tuple[int, EncodedImage], rng: np.random.Generator) -> _Example:
        index, (data, label) = numbered
        mode = source.mode
        with reading(source.where(index)):
            if resize is None:
                pixels = _random_resized_crop(
                    data, mode, image_size, scale, rng, interpolation
                )
            else:
                pixels = _middle(data, mode, image_size, resize, interpolation)
        return pixels, np.int32(label), np.float32(1), np.int32(index)

    dataset = grain.MapDataset.source(_Numbered(source)).seed(seed).shuffle().repeat()
    if repeats > 1:
        dataset = _repeated(dataset, len(source), seed, repeats)
    # Skip after the crops are numbered, so that the crops stay the same.
    dataset = dataset[index::count].random_map(crop)[start * batch_size :]
    return _iterate(dataset, batch_size, num_workers)


def eval_stream(
    source: ImageSource,
    *,
    batch_size: int,
    image_size: int = 224,
    resize: int = 256,
    process_index: int | None = None,
    process_count: int | None = None,
    num_workers: int = 0,
    interpolation: str = "bilinear",
) -> grain.DatasetIterator[ImageBatch]:
    """Returns the central crop of every image once, in order.

    The last batch is padded at weight 0, so that all processes take the same number of
    steps.

    Args:
        source: See `open_images`.
        batch_size: Images per batch in this process.
        image_size: Side of the crop.
        resize: Length of the shorter side before cropping.
        process_index: Index of this process; None: that of JAX.
        process_count: Number of processes; that of JAX if None.
        num_workers: Processes that decode ahead; 0: threads of this process.
        interpolation: ``bilinear`` or ``bicubic`` resizing.

    Returns:
        An iterator of batches.
    """
    index, count = _process(process_index, process_count)
    total = len(source)
    padded = math.ceil(total / (batch_size * count)) * batch_size * count

    def centre(position: int) -> _Example:
        place = position % total
        data, label = source[place]
        with reading(source.where(place)):
            pixels = _middle(data, source.mode, image_size, resize, interpolation)
        return pixels, np.int32(label), np.float32(position < total), np.int32(place)

    dataset = grain.MapDataset.range(padded)[index::count].map(centre)
    return _iterate(dataset, batch_size, num_workers)


def _repeated(
    dataset: grain.MapDataset, size: int, seed: int, repeats: int
) -> grain.MapDataset:
    """Reads element j of each epoch at place j // repeats of its permutation."""

    def read(position: int, _: int) -> Any:
        epoch, place = divmod(position, size)
        return dataset[epoch * size + place // repeats]

    return grain.MapDataset.range(size).seed(seed).repeat().map_with_index(read)


class _Numbered:
    """A source that returns images with their indices."""

    def __init__(self, source: ImageSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: SupportsIndex) -> tuple[int, EncodedImage]:
        return index.__index__(), self._source[index]


def _process(index: int | None, count: int | None) -> tuple[int, int]:
    if (index is None) != (count is None):
        raise ValueError("give both process_index and process_count, or neither")
    if index is None or count is None:
        return jax.process_index(), jax.process_count()
    return index, count


def _iterate(
    examples: grain.MapDataset[_Example], batch_size: int, num_workers: int
) -> grain.DatasetIterator[ImageBatch]:
    if num_workers == 0:
        # Pillow releases the GIL while it decodes, so threads help. The buffer holds
        # single images, for which Grain's default of 500 elements is made.
        ahead = max(16, 2 * batch_size)
        threads = grain.ReadOptions(num_threads=16, prefetch_buffer_size=ahead)
        batches = examples.to_iter_dataset(threads).batch(batch_size)
        return iter(batches.map(_to_batch))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read them
    # Batched before the workers share the stream: each then makes whole batches, which
    # do not depend on the number of workers.
    threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    batches = examples.batch(batch_size).map(_to_batch).to_iter_dataset(threads)
    return iter(
        batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    )


def _to_batch(columns: tuple[np.ndarray, ...]) -> ImageBatch:
    return ImageBatch(*columns)


def _middle(
    data: bytes, mode: str, size: int, resize: int, interpolation: str
) -> UInt8[np.ndarray, "h w c"]:
    image = open_image(data, mode)
    return to_array(resize_and_crop(image, resize, size, FILTERS[interpolation]))


def _random_resized_crop(
    data: bytes,
    mode: str,
    size: int,
    scale: tuple[float, float],
    rng: np.random.Generator,
    interpolation: str,
) -> UInt8[np.ndarray, "h w c"]:
    """Crops a random box, resizes it with antialiasing, and mirrors it at random.

    A box that does not fit is drawn again, up to ten times; then it is the largest
    central one with a ratio in the range.
    """
    image = open_image(data, mode)
    width, height = image.size
    low, high = _RATIOS
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        root = math.exp(rng.uniform(math.log(low), math.log(high)) / 2)
        box_width = round(math.sqrt(area) * root)
        box_height = round(math.sqrt(area) / root)
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(width - box_width + 1))
            top = int(rng.integers(height - box_height + 1))
            break
    else:
        box_width = min(width, round(height * high))
        box_height = min(height, round(width / low))
        left, top = (width - box_width) // 2, (height - box_height) // 2
    # Crop first: resizing with a box would blend in pixels around it.
    image = image.crop((left, top, left + box_width, top + box_height))
    image = image.resize((size, size), FILTERS[interpolation])
    pixels = to_array(image)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
