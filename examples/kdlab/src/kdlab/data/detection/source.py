"""Encoded images with boxes, independent of how they are stored."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, SupportsIndex

import numpy as np
from jaxtyping import Float32, Int32


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: Left, top, right, bottom in pixels.
        labels: Categories.
    """

    boxes: Float32[np.ndarray, "t 4"]
    labels: Int32[np.ndarray, " t"]


class Annotated(NamedTuple):
    """An encoded image file in memory with its objects."""

    data: bytes
    objects: Objects


class DetectionSource(Protocol):
    """Random access to the images of one split, picklable for workers."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def __getitem__(self, index: SupportsIndex) -> Annotated:
        """Returns one image and its objects, as training sees them."""
        ...

    def where(self, index: int) -> str:
        """Describes the location of an image, for messages."""
        ...

    def image_id(self, index: int) -> int:
        """Returns the number by which the annotations know an image."""
        ...

    def ground_truth(self) -> dict[str, Any]:
        """Returns images, annotations and categories in the format of COCO."""
        ...


class Subset:
    """The first images of a source.

    Args:
        source: The source.
        count: Number of images to keep.
    """

    def __init__(self, source: DetectionSource, count: int):
        if not 1 <= count <= len(source):
            raise ValueError(
                f"{count} images are asked for, but there are {len(source)}"
            )
        self._source, self._count = source, count
        self.where, self.image_id = source.where, source.image_id

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._count

    def __getitem__(self, index: SupportsIndex) -> Annotated:
        """Returns one image and its objects."""
        if not 0 <= index.__index__() < self._count:
            raise IndexError(index)
        return self._source[index]

    def ground_truth(self) -> dict[str, Any]:
        """Returns the annotations of these images alone."""
        everything = self._source.ground_truth()
        kept = {self.image_id(index) for index in range(self._count)}
        return everything | {
            "images": [x for x in everything["images"] if x["id"] in kept],
            "annotations": [
                x for x in everything["annotations"] if x["image_id"] in kept
            ],
        }


def clean(annotations: Sequence[dict[str, Any]], width: int, height: int) -> Objects:
    """Returns the objects that a detector is trained on.

    Crowds are left out, boxes are clipped to the image, and those without width or
    height are left out.

    Args:
        annotations: Annotations of one image in the format of COCO.
        width: Width of the image in pixels.
        height: Its height.

    Examples:
        >>> box = {"bbox": [-2, 0, 10, 4], "category_id": 3, "iscrowd": 0}
        >>> crowd, flat = box | {"iscrowd": 1}, box | {"bbox": [9, 9, 0, 5]}
        >>> found = clean([box, crowd, flat], 8, 8)
        >>> print(found.boxes, found.labels)
        [[0. 0. 8. 4.]] [3]
    """
    singles = [x for x in annotations if not x.get("iscrowd", 0)]
    boxes = np.array([x["bbox"] for x in singles], np.float32).reshape(-1, 4)
    labels = np.array([x["category_id"] for x in singles], np.int32)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = np.clip(corners, 0, np.array([width, height, width, height], np.float32))
    kept = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return Objects(corners[kept], labels[kept])
