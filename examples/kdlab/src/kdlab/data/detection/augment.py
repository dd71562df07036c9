"""The augmentations of DETR: flips, sizes of the shorter side, random crops."""

import dataclasses

import numpy as np
from PIL import Image

from kdlab.data.detection.source import Objects

_MULTIPLE = 16  # sides after resizing are rounded down to a multiple of it


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images are changed.

    With probability 1/2 an image is mirrored. Then, with probability 1/2 each, its
    shorter side is resized to one of ``sides``; or to one of ``crop_sides``, after
    which a box with sides between ``crop`` is cut out and resized to one of ``sides``.

    Attributes:
        flip: Whether images are mirrored.
        sides: Lengths of the shorter side to choose from.
        longest: Maximum length of the longer side; it wins over ``sides``.
        crop_sides: Lengths of the shorter side before a crop; empty: no crops.
        crop: Shortest and longest side of a crop.
    """

    flip: bool = True
    sides: tuple[int, ...] = tuple(range(480, 801, 16))
    longest: int = 1333
    crop_sides: tuple[int, ...] = (400, 500, 600)
    crop: tuple[int, int] = (384, 600)

    def __call__(
        self, image: Image.Image, objects: Objects, rng: np.random.Generator
    ) -> tuple[Image.Image, Objects]:
        """Draws and applies the changes.

        Objects that a crop leaves without area are left out; an image may remain
        without objects.
        """
        if self.flip and rng.random() < 0.5:
            image, objects = mirror(image, objects)
        if self.crop_sides and rng.random() < 0.5:
            side = int(rng.choice(self.crop_sides))
            image, objects = resize(image, objects, side, None)
            image, objects = cut(image, objects, self._draw_box(image, rng))
        side = int(rng.choice(self.sides))
        return resize(image, objects, side, self.longest)

    def _draw_box(
        self, image: Image.Image, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        low, high = self.crop
        width, height = (
            int(rng.integers(min(low, side), min(high, side) + 1))
            for side in image.size
        )
        left = int(rng.integers(image.width - width + 1))
        top = int(rng.integers(image.height - height + 1))
        return left, top, left + width, top + height


def mirror(image: Image.Image, objects: Objects) -> tuple[Image.Image, Objects]:
    """Mirrors an image left to right."""
    left, top, right, bottom = objects.boxes.T
    boxes = np.stack([image.width - right, top, image.width - left, bottom], axis=1)
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return flipped, objects._replace(boxes=boxes)


def resize(
    image: Image.Image, objects: Objects, side: int, longest: int | None
) -> tuple[Image.Image, Objects]:
    """Resizes the shorter side of an image, with antialiasing.

    Args:
        image: The image.
        objects: Its objects.
        side: Length of the shorter side.
        longest: Maximum length of the longer side; None: any.

    Returns:
        Image and objects. Both sides are rounded down to a multiple of 16.

    Examples:
        >>> nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
        >>> resize(Image.new("RGB", (640, 427)), nothing, 800, 1333)[0].size
        (1184, 800)
    """
    short, long = sorted(image.size)
    if longest is not None:
        side = min(side, round(longest * short / long))
    width, height = (
        max(int(side * length / short) // _MULTIPLE, 1) * _MULTIPLE
        for length in image.size
    )
    scale = np.array([width / image.width, height / image.height] * 2, np.float32)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized, objects._replace(boxes=objects.boxes * scale)


def cut(
    image: Image.Image, objects: Objects, box: tuple[int, int, int, int]
) -> tuple[Image.Image, Objects]:
    """Cuts a box out of an image; objects without area inside it are left out."""
    left, top, right, bottom = box
    boxes = objects.boxes - np.array([left, top, left, top], np.float32)
    width, height = right - left, bottom - top
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return image.crop(box), Objects(boxes[kept], objects.labels[kept])
