"""Batches for the devices, from a data set in memory or from one that is streamed.

The position in a training is the epoch and the step, whatever the batches come from:
nothing else needs to be saved to go on with the very next batch.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from kdlab.data import batches, num_batches
from kdlab.data.images import ImageSource
from kdlab.data.split import Chosen, Split
from kdlab.devices.mesh import Layout


class Stream(NamedTuple):
    """One part of a data set, decoded as it is needed.

    Attributes:
        source: The encoded images and their labels.
        image_size: Side of the images that come out.
        resize: Length of the shorter side before the middle is cut out.
        crops: Whether training takes random resized crops, half of them mirrored,
            instead of the middle.
        workers: Processes that decode ahead; 0: threads of this one.
    """

    source: ImageSource
    image_size: int
    resize: int
    crops: bool = False
    workers: int = 0

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.source)


class Fed(NamedTuple):
    """What a step is given.

    Attributes:
        data: The data set on the devices, or the images and labels of this batch.
        indices: Indices of the batch in the data set.
        weights: 0 where an image only pads the batch.
    """

    data: Split | Chosen
    indices: Any
    weights: Any


class Feed:
    """Batches of a training, of any epoch and from any step of it on."""

    def __init__(self, data: Split | Stream, layout: Layout, batch_size: int):
        """Binds what all epochs share.

        Args:
            data: Training images and labels.
            layout: Where arrays lie.
            batch_size: Images in a step, over all devices.
        """
        self.steps = num_batches(data.size, batch_size)
        self._data, self._layout, self._batch_size = data, layout, batch_size
        # What is open, and the seed and the number of steps at which it stands.
        self._stream: Any = None
        self._at = (-1, -1)
        self._resident: Split | None = None
        if isinstance(data, Split) and jax.process_count() == 1:
            self._resident = layout.replicate(data)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Fed]:
        """Batches of an epoch.

        Args:
            seed: Seed of the order, and of the crops of a stream.
            epoch: From 0.
            start: Steps that are done already.
        """
        if isinstance(self._data, Stream):
            return self._streamed(self._data, seed, epoch, start)
        return self._chosen(self._data, seed, epoch, start)

    def _chosen(self, data: Split, seed: int, epoch: int, start: int) -> Iterator[Fed]:
        size = self._batch_size
        order = batches(data.size, size, seed=seed, epoch=epoch, start=start)
        for indices, weights in order:
            images = self._resident or Chosen(*self._layout.feed(data, indices))
            yield Fed(images, indices, weights)

    def _streamed(
        self, data: Stream, seed: int, epoch: int, start: int
    ) -> Iterator[Fed]:
        done = epoch * self.steps + start
        if self._at != (seed, done):  # not for each epoch: workers take long to start
            self._stream = self._open(data, seed, done)
        for step in range(done, (epoch + 1) * self.steps):
            batch, self._at = self._next(), (seed, step + 1)
            images, labels, weights, indices = self._layout.join(batch)
            yield Fed(Chosen(images, labels), indices, weights)

    def _next(self) -> Any:
        try:
            return next(self._stream)
        except Exception:
            self._stream.close()  # or its workers would fail at the end of the program
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
        )


def iterate_once(
    data: Split | Stream, layout: Layout, batch_size: int
) -> Iterator[dict]:
    """Every image once, in order: ``images``, ``labels`` and ``weights`` of batches.

    Args:
        data: Any part of a data set.
        layout: Where the batches lie.
        batch_size: Greatest number of images in a batch, over all devices.
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
    )
    with contextlib.closing(stream):
        for batch in stream:
            yield layout.join(batch._asdict())
