"""Reads image classification sets prepared by TFDS, without TensorFlow."""

import importlib.util
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

from kdlab.basics.reading import UserError, reading
from kdlab.data.fingerprint import hash_files
from kdlab.data.images import EncodedImage
from kdlab.data.sources.tfrecord import TFRecords

PREPARE = "Prepare the data set again, or copy it again."
"""Advice for damaged files."""


def read_info(folder: Path) -> Any:
    """Reads the ``tfds.core.DatasetInfo`` of a prepared set.

    Raises:
        ValueError: If one of its descriptions is damaged; the message names the file.
    """
    import tensorflow_datasets as tfds

    for path in sorted(folder.glob("*.json")):
        with reading(path, PREPARE):
            json.loads(path.read_text())
    with reading(folder, PREPARE):
        return tfds.builder_from_directory(folder).info


def find_prepared(name: str, data_dir: Path | None) -> Path | None:
    """Finds the folder that TFDS prepared for a data set: ``data_dir/name/version``.

    Args:
        name: TFDS name, optionally with a config: ``imagenet_resized/64x64``.
        data_dir: Root of the prepared sets, or the folder of this set itself.

    Returns:
        The newest version, or None if there is none.

    Raises:
        ValueError: If there are several configs and `name` does not choose one.
    """
    if data_dir is None:
        return None
    if (data_dir / "dataset_info.json").is_file():
        named = {data_dir.parent.name, data_dir.parent.parent.name}
        return data_dir if name.split("/")[0] in named else None
    versions = _versions(data_dir / name)
    if not versions:
        # Sets with configs have a folder for each between the name and the version.
        configs = [path for path in (data_dir / name).glob("*") if _versions(path)]
        if len(configs) > 1:
            choices = ", ".join(sorted(f"{name}/{path.name}" for path in configs))
            raise ValueError(f"{name} is prepared in several configs: use {choices}")
        versions = [found for path in configs for found in _versions(path)]
    return max(versions, key=_version_key, default=None)


def _versions(folder: Path) -> list[Path]:
    """Returns folders such as 1.0.0; TFDS leaves others behind if interrupted."""
    found = [path.parent for path in folder.glob("*/dataset_info.json")]
    return [path for path in found if re.fullmatch(r"\d+(\.\d+)*", path.name)]


def _version_key(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split(".") if part.isdigit())


def tfds_names() -> list[str]:
    """Returns the names in the TFDS catalogue; empty if TFDS is not installed."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        return []
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


class TfdsSource:
    """The encoded images of one split of a prepared set, ArrayRecord or TFRecord.

    Args:
        folder: Folder with ``dataset_info.json``; see `find_prepared`.
        split: ``train`` or ``test``; the latter is ``validation`` if the set has no
            labelled test split.

    Raises:
        ValueError: If the set has no such split, does not hold labelled images, or is
            in another format.
    """

    def __init__(self, folder: Path, split: str):
        import tensorflow_datasets as tfds

        self._folder, self._split = folder, split
        info = read_info(folder)
        # ImageNet has a test split, but its labels are not public.
        if split == "test" and (
            "test" not in info.splits or info.name == "imagenet2012"
        ):
            split = "validation"
        self._records = open_split(folder, info, split)
        self._image_key, self._label_key = info.supervised_keys or ("", "")
        features = dict(info.features.items())
        image = features.get(self._image_key)
        label = features.get(self._label_key)
        if not isinstance(image, tfds.features.Image) or not isinstance(
            label, tfds.features.ClassLabel
        ):
            raise ValueError(
                f"{folder} does not hold images with one class each: its supervised "
                f"keys are {info.supervised_keys}"
            )
        self._features = info.features
        self._skip = {self._image_key: tfds.decode.SkipDecoding()}
        self.mode = "L" if image.shape[-1] == 1 else "RGB"
        self.num_classes = label.num_classes or 0
        self._paths = [Path(path) for path in info.splits[split].filepaths]

    def __reduce__(self) -> tuple[type["TfdsSource"], tuple[Path, str]]:
        """Makes other processes open the files again."""
        return TfdsSource, (self._folder, self._split)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> EncodedImage:
        """Returns one image and its label."""
        with reading(self.where(index.__index__()), PREPARE):
            record = self._records[index]
            example = self._features.deserialize_example_np(record, decoders=self._skip)
            return EncodedImage(example[self._image_key], int(example[self._label_key]))

    def where(self, index: int) -> str:
        """Describes an image by its index, split and folder."""
        return f"image {index} of the split {self._split} of {self._folder}"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files of the split and their descriptions."""
        described = sorted(self._folder.glob("*.json"))
        return hash_files([*described, *self._paths], root=self._folder)


class _Records(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex, /) -> bytes: ...


def open_split(folder: Path, info: Any, split: str) -> _Records:
    """Opens the records of a split of a prepared set.

    Args:
        folder: The set.
        info: What :func:`read_info` returned for it.
        split: Name of the split.

    Raises:
        ValueError: If there is no such split, records are missing, or they are in
            another format.
    """
    if split not in info.splits:
        raise UserError(
            f"{folder} has no split {split!r}; it has: {', '.join(info.splits)}"
        )
    paths = [Path(path) for path in info.splits[split].filepaths]
    records = open_records(paths, info.file_format)
    expected = info.splits[split].num_examples
    if expected and len(records) != expected:
        raise UserError(
            f"{folder} holds {len(records)} examples of the split {split!r}, expected "
            f"{expected}. {PREPARE}"
        )
    return records


def open_records(paths: list[Path], file_format: object) -> _Records:
    """Opens the records of a prepared split, as bytes.

    Raises:
        ValueError: If they are neither TFRecord nor ArrayRecord files.
    """
    from tensorflow_datasets.core.file_adapters import FileFormat

    if file_format == FileFormat.TFRECORD:
        return TFRecords(paths)
    if file_format == FileFormat.ARRAY_RECORD:
        from array_record.python import array_record_data_source as array_record

        try:
            return array_record.ArrayRecordDataSource(list(map(str, paths)))
        except Exception:  # may not name the file
            for path in paths:
                with reading(path, PREPARE):
                    array_record.ArrayRecordDataSource(str(path))
            raise
    raise ValueError(
        f"{paths[0].parent} is in the format {file_format}; prepare it as array_record"
    )
