"""What a detector is trained on: padded images with padded lists of boxes."""

from typing import Any, NamedTuple


class Targets(NamedTuple):
    """The objects of a batch, padded to the same number per image.

    Attributes:
        boxes: Centre, width and height as fractions of the unpadded image,
            ``[b, t, 4]``.
        labels: Categories, ``[b, t]``, int32.
        present: Which entries are objects and not padding, ``[b, t]`` bools.
    """

    boxes: Any
    labels: Any
    present: Any


class DetectionBatch(NamedTuple):
    """Images of one size after padding at the right and at the bottom, with objects.

    Attributes:
        images: ``[b, h, w, 3]``, uint8; 0 where padded.
        mask: Where images are padding, ``[b, h, w]`` bools.
        targets: The objects.
        sizes: Height and width in pixels of the original images, ``[b, 2]``, int32.
        indices: Positions in the source, ``[b]``, int32; -1 for images that only fill
            the batch.
    """

    images: Any
    mask: Any
    targets: Targets
    sizes: Any
    indices: Any
