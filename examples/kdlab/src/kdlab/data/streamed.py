"""Data sets that stay on disk."""

import dataclasses
from functools import cached_property

from kdlab.data.fingerprint import hash_arrays
from kdlab.data.images import ImageSource


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """A data set of encoded images that are decoded on the fly, all to one size.

    Attributes:
        name: Name under which it was requested.
        train: The training images.
        test: The test images.
        mean: Mean per channel of images in [0, 1].
        std: Standard deviation per channel of images in [0, 1].
        image_size: Side of the output images.
        resize: Length of the shorter side before the centre is cropped in evaluation.
    """

    name: str
    train: ImageSource
    test: ImageSource
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    resize: int

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images, their labels and their preprocessing."""
        sources = self.train.fingerprint, self.test.fingerprint, self.num_classes
        seen = tuple(self.mean), tuple(self.std), self.image_size, self.resize
        return hash_arrays((), sources, seen, self.train.mode)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.train.num_classes

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the output images."""
        return self.image_size, self.image_size, 1 if self.train.mode == "L" else 3
