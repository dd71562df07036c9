"""Images and labels in memory: a part of a data set, or one batch of it."""

from typing import Any, NamedTuple


class Split(NamedTuple):
    """Images and labels of one part of a data set.

    Attributes:
        images: ``[n, h, w, c]`` of uint8.
        labels: ``[n]``.
    """

    images: Any
    labels: Any

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, indices: Any) -> "Chosen":
        """Gathers one batch."""
        return Chosen(self.images[indices], self.labels[indices])


class Chosen(NamedTuple):
    """Images and labels of one batch, where the data set is not on the device."""

    images: Any
    labels: Any
