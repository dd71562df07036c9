"""Images and labels in memory: a split of a data set, or one batch of it."""

from typing import Any, NamedTuple


class Split(NamedTuple):
    """Images and labels of one split of a data set.

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

    def take(self, indices: Any) -> "Examples":
        """Gathers one batch."""
        return Examples(self.images[indices], self.labels[indices])


class Examples(NamedTuple):
    """Images and labels of one batch of a data set that is not on the device."""

    images: Any
    labels: Any
