"""Reads sets in the format of COCO: annotations in JSON, and a folder of images."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, SupportsIndex

from kdlab.basics.reading import reading
from kdlab.data.detection.source import Annotated, clean
from kdlab.data.sources.errors import missing_files

_IMAGE_FIELDS = ("id", "width", "height", "file_name")
_OBJECT_FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


def annotation_file(folder: Path, split: str) -> Path:
    """Returns the path of the annotations of a split, as COCO names it."""
    return folder / "annotations" / f"instances_{split}.json"


def image_folder(folder: Path, split: str) -> Path:
    """Returns the folder of the images of a split."""
    return folder / split


class CocoFiles:
    """The images of a split: ``SPLIT/*`` and ``annotations/instances_SPLIT.json``.

    Args:
        folder: The folder of both.
        split: Name of the split, such as ``train2017``.

    Raises:
        FileNotFoundError: If the annotations are not there.
        ValueError: If they are damaged, or lack a field.
    """

    def __init__(self, folder: Path, split: str):
        self._folder, self._split = folder, split
        path = annotation_file(folder, split)
        if not path.is_file():
            raise missing_files(
                "detection",
                files=[f"annotations/instances_{split}.json", f"{split}/*.jpg"],
                folder=folder,
                how="https://cocodataset.org/#download; `kdlab make-scenes` writes "
                "scenes of digits.",
            )
        with reading(path):
            self._record = json.loads(path.read_text())
            for kind, fields in (
                ("images", _IMAGE_FIELDS),
                ("annotations", _OBJECT_FIELDS),
                ("categories", ("id",)),
            ):
                _check_fields(self._record[kind], kind, fields)
        self._objects = defaultdict(list)
        for one in self._record["annotations"]:
            self._objects[one["image_id"]].append(one)
        self._images = sorted(self._record["images"], key=lambda image: image["id"])

    def __reduce__(self) -> tuple[type["CocoFiles"], tuple[Path, str]]:
        """Makes other processes read the annotations again."""
        return CocoFiles, (self._folder, self._split)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images)

    def __getitem__(self, index: SupportsIndex) -> Annotated:
        """Returns one image and its objects."""
        image = self._images[index.__index__()]
        path = self._path(image)
        with reading(path):
            data = path.read_bytes()
        objects = self._objects.get(image["id"], [])
        return Annotated(data, clean(objects, image["width"], image["height"]))

    def where(self, index: int) -> str:
        """Returns the path of an image."""
        return str(self._path(self._images[index]))

    def image_id(self, index: int) -> int:
        """Returns the number by which the annotations know an image."""
        return int(self._images[index]["id"])

    def ground_truth(self) -> dict[str, Any]:
        """Returns the annotations as they were read."""
        return self._record

    def _path(self, image: dict[str, Any]) -> Path:
        return image_folder(self._folder, self._split) / image["file_name"]


def _check_fields(rows: list[dict], kind: str, fields: tuple[str, ...]) -> None:
    for number, row in enumerate(rows):
        missing = [field for field in fields if field not in row]
        if missing:
            raise ValueError(
                f"entry {number} of {kind!r} has no {missing[0]!r}; expected the "
                f"fields {', '.join(fields)}"
            )
