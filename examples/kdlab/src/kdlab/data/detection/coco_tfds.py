"""Reads COCO as TFDS prepares it, without TensorFlow."""

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from PIL import Image

from kdlab.basics.reading import UserError, reading
from kdlab.data.detection.source import Annotated, clean
from kdlab.data.sources.tfds_source import PREPARE, open_split, read_info

_ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(i for i in range(1, 91) if i not in _ABSENT)
"""The ids of the 80 categories, in the order of the labels 0..79 of TFDS."""


class CocoTfds:
    """The images of one split of ``coco/2017`` or ``coco/2014``.

    Args:
        folder: Folder with ``dataset_info.json``.
        split: ``train`` or ``validation``.

    Raises:
        ValueError: If there is no such split, the set does not hold objects, or it is
            in another format than ArrayRecord and TFRecord.
    """

    def __init__(self, folder: Path, split: str):
        import tensorflow_datasets as tfds

        self._folder, self._split = folder, split
        info = read_info(folder)
        self._records = open_split(folder, info, split)
        if "objects" not in info.features:
            raise UserError(f"{folder} does not hold objects; expected coco/2017")
        self._features = info.features
        self._skip = {"image": tfds.decode.SkipDecoding()}

    def __reduce__(self) -> tuple[type["CocoTfds"], tuple[Path, str]]:
        """Makes other processes open the files again."""
        return CocoTfds, (self._folder, self._split)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Annotated:
        """Returns one image and its objects."""
        example = self._example(index)
        data = example["image"]
        with reading(self.where(index.__index__()), PREPARE):
            height, width = image_size(data)
            found = clean(list(_annotations(example, height, width)), width, height)
        return Annotated(data, found)

    def where(self, index: int) -> str:
        """Describes an image by its index, split and folder."""
        return f"image {index} of the split {self._split} of {self._folder}"

    def image_id(self, index: int) -> int:
        """Returns the number of an image in COCO."""
        return self._ids[index]

    @cached_property
    def _ids(self) -> list[int]:
        return [int(image["id"]) for image in self._truth["images"]]

    def ground_truth(self) -> dict[str, Any]:
        """Returns the annotations in the format of COCO."""
        return self._truth

    @cached_property
    def _truth(self) -> dict[str, Any]:
        """Reads every record once."""
        images, annotations = [], []
        for index in range(len(self)):
            example = self._example(index)
            height, width = image_size(example["image"])
            image = int(example["image/id"])
            images.append({"id": image, "width": width, "height": height})
            annotations += [
                {"image_id": image, **one}
                for one in _annotations(example, height, width)
            ]
        names = self._features["objects"]["label"].names
        categories = [
            {"id": number, "name": name}
            for number, name in zip(COCO_IDS, names, strict=True)
        ]
        return {
            "images": images,
            "annotations": [{"id": i, **x} for i, x in enumerate(annotations, 1)],
            "categories": categories,
        }

    def _example(self, index: SupportsIndex) -> dict[str, Any]:
        with reading(self.where(index.__index__()), PREPARE):
            record = self._records[index]
            return self._features.deserialize_example_np(record, decoders=self._skip)


def image_size(data: bytes) -> tuple[int, int]:
    """Returns height and width of an encoded image, without decoding its pixels."""
    with Image.open(io.BytesIO(data)) as image:
        return image.height, image.width


def _annotations(
    example: dict[str, Any], height: int, width: int
) -> Iterator[dict[str, Any]]:
    """Yields the objects of an image as COCO writes them.

    The id of an annotation is not kept, since evaluation needs numbers from 1.
    """
    objects = example["objects"]
    for box, label, area, crowd in zip(
        *(objects[name] for name in ("bbox", "label", "area", "is_crowd")), strict=True
    ):
        top, left, bottom, right = np.asarray(box, np.float64) * [
            *(height, width, height, width)
        ]
        yield {
            "category_id": COCO_IDS[int(label)],
            "bbox": [float(x) for x in (left, top, right - left, bottom - top)],
            "area": float(area),
            "iscrowd": int(crowd),
        }
