"""Tiny-ImageNet as a TFDS data set, from the archive of its authors."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdlab.basics.reading import reading
from kdlab.data.sources.folders import is_hidden

ARCHIVE = "tiny-imagenet-200.zip"
_ROOT = "tiny-imagenet-200"


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet at 64x64, 500 training and 50 validation images each.

    TFDS has no such builder. The JPEG files are copied into the records unchanged, so
    no TensorFlow is needed. The published test split has no labels and is omitted.

    References:
        Le and Yang, `Tiny ImageNet Visual Recognition Challenge
        <http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf>`_, 2015
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {ARCHIVE} (http://cs231n.stanford.edu/{ARCHIVE}) there."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(64, 64, 3), encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=200),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        archive = Path(dl_manager.manual_dir) / ARCHIVE
        return {
            "train": self._generate_examples(archive, "train"),
            "validation": self._generate_examples(archive, "val"),
        }

    def _generate_examples(
        self, archive: Path, split: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        with reading(archive), zipfile.ZipFile(archive) as files:
            # Sorted, so that classes are numbered as in a tree of class folders.
            wnids = sorted(files.read(f"{_ROOT}/wnids.txt").decode().split())
            labels = {wnid: label for label, wnid in enumerate(wnids)}
            if split == "train":
                examples = _training_files(files)
            else:
                examples = _validation_files(files)
            for path, wnid in examples:
                yield (
                    path,
                    {"image": io.BytesIO(files.read(path)), "label": labels[wnid]},
                )


def _training_files(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Lists the training images, which are in folders named after their class."""
    for path in files.namelist():
        match path.split("/"):
            case [_, "train", wnid, "images", name] if name.endswith(".JPEG"):
                if not is_hidden(name):
                    yield path, wnid


def _validation_files(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Lists the validation images, whose classes are in a table."""
    table = files.read(f"{_ROOT}/val/val_annotations.txt").decode()
    for line in table.splitlines():
        name, wnid, *_ = line.split("\t")
        yield f"{_ROOT}/val/images/{name}", wnid
