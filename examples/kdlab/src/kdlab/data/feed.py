"""Feeds the devices with batches of a data set in memory or of a streamed one.

Either way the position in a training is its epoch and step: nothing else needs to be
saved to resume with the very next batch.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from kdlab.data import batches, num_batches
from kdlab.data.images import ImageSource
from kdlab.data.split import Examples, Split
from kdlab.devices.mesh import Layout


class Stream(NamedTuple):
    """One split of a data set that is decoded on the fly.

    Attributes:
        source: The encoded images and their labels.
        image_size: Side of the output images.
        resize: Length of the shorter side before the centre is cropped.
        crops: Whether training uses random resized crops and flips instead of the
            centre.
        workers: Number of processes that decode ahead; 0: threads of this process.
        interpolation: ``bilinear`` or ``bicubic`` resizing.
    """

    source: ImageSource
    image_size: int
    resize: int
    crops: bool = False
    workers: int = 0
    interpolation: str = "bilinear"

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.source)


class StepInputs(NamedTuple):
    """The inputs of a step.

    Attributes:
        data: The whole data set on the devices, or the images and labels of the batch.
        indices: Indices of the batch in the data set.
        weights: Sample weights, 0 for padding.
    """

    data: Split | Examples
    indices: Any
    weights: Any


class Feed:
    """The batches of a training, from any epoch and step."""

    def __init__(
        self, data: Split | Stream, layout: Layout, batch_size: int, repeats: int = 1
    ):
        """Prepares what all epochs share.

        Args:
            data: Training images and labels.
            layout: Placement of the arrays.
            batch_size: Images per step, over all devices.
            repeats: Times that an image is drawn in an epoch.
        """
        self._repeats = repeats
        self.steps = num_batches(data.size, batch_size)
        self._data, self._layout, self._batch_size = data, layout, batch_size
        # The open stream, and its position: the seed and the number of steps.
        self._stream: Any = None
        self._at = (-1, -1)
        self._resident: Split | None = None
        if isinstance(data, Split) and jax.process_count() == 1:
            self._resident = layout.replicate(data)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[StepInputs]:
        """Iterates over the batches of an epoch.

        Args:
            seed: Seed of the order, and of the crops of a stream.
            epoch: Index of the epoch, from 0.
            start: Number of steps to skip.
        """
        if isinstance(self._data, Stream):
            return self._streamed(self._data, seed, epoch, start)
        return self._in_memory(self._data, seed, epoch, start)

    def _in_memory(
        self, data: Split, seed: int, epoch: int, start: int
    ) -> Iterator[StepInputs]:
        size = self._batch_size
        order = batches(
            data.size,
            size,
            seed=seed,
            epoch=epoch,
            start=start,
            repeats=self._repeats,
        )
        for indices, weights in order:
            images = self._resident or Examples(*self._layout.feed(data, indices))
            yield StepInputs(images, indices, weights)

    def _streamed(
        self, data: Stream, seed: int, epoch: int, start: int
    ) -> Iterator[StepInputs]:
        done = epoch * self.steps + start
        if self._at != (seed, done):  # not at each epoch: workers are slow to start
            self._stream = self._open(data, seed, done)
        for step in range(done, (epoch + 1) * self.steps):
            batch, self._at = self._next(), (seed, step + 1)
            images, labels, weights, indices = self._layout.join(batch)
            yield StepInputs(Examples(images, labels), indices, weights)

    def _next(self) -> Any:
        try:
            return next(self._stream)
        except Exception:
            self._stream.close()  # otherwise its workers fail when the program ends
            raise

    def _open(self, data: Stream, seed: int, done: int) -> Iterator:
        from kdlab.data.stream import train_stream

        return train_stream(
            data.source,
            batch_size=self._batch_size // jax.process_count(),
            seed=seed,
            image_size=data.image_size,
            resize=None if data.crops else data.resize,
            start=done,
            num_workers=data.workers,
            repeats=self._repeats,
            interpolation=data.interpolation,
        )


def iterate_once(
    data: Split | Stream, layout: Layout, batch_size: int
) -> Iterator[dict]:
    """Yields every image once, in order, as ``images``, ``labels`` and ``weights``.

    Args:
        data: A split of a data set.
        layout: Placement of the batches.
        batch_size: Maximum number of images per batch, over all devices.
    """
    size = layout.rounded(min(batch_size, data.size))
    if isinstance(data, Split):
        for indices, weights in batches(data.size, size, seed=None):
            images, labels = data.images[indices], data.labels[indices]
            batch = {"images": images, "labels": labels, "weights": weights}
            yield layout.divide(batch)
        return
    from kdlab.data.stream import eval_stream

    stream = eval_stream(
        data.source,
        batch_size=size // jax.process_count(),
        image_size=data.image_size,
        resize=data.resize,
        num_workers=data.workers,
        interpolation=data.interpolation,
    )
    with contextlib.closing(stream):
        for batch in stream:
            yield layout.join(batch._asdict())
