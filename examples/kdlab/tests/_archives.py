"""Small data sets in the true formats, made offline."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from PIL import Image


def encode(pixels, file_format="PNG"):
    """Makes an image file in memory."""
    buffer = io.BytesIO()
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def random_images(n, side, channels=3, seed=0):
    shape = (n, side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(folder, num_train=6, num_test=4):
    """Writes the four MNIST files; returns the arrays in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, n in (("train", num_train), ("t10k", num_test)):
        arrays[f"{part}-images-idx3-ubyte"] = random_images(n, 28)[..., 0]
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n, dtype=np.uint8)
    for stem, array in arrays.items():
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        content = gzip.compress(header + array.tobytes())
        (folder / f"{stem}.gz").write_bytes(content)
    return arrays


def cifar_rows(name, n, seed):
    """Makes pixels ``[n, 3072]``, coarse and fine labels."""
    rng = np.random.default_rng(seed)
    classes = {"cifar10": 10, "cifar100": 100}[name]
    pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
    return pixels, rng.integers(0, 20, n), rng.integers(0, classes, n)


CIFAR_PARTS = {
    "cifar10": {
        "python": [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)]
        + ["cifar-10-batches-py/test_batch"],
        "binary": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)]
        + ["cifar-10-batches-bin/test_batch.bin"],
    },
    "cifar100": {
        "python": ["cifar-100-python/train", "cifar-100-python/test"],
        "binary": ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
    },
}


def write_cifar(folder, name, kind, rows_per_part=3):
    """Writes the archive in its authors' layout; returns the rows of each part."""
    parts = [
        cifar_rows(name, rows_per_part, seed)
        for seed in range(len(CIFAR_PARTS[name][kind]))
    ]
    archive = folder / f"{name.replace('cifar', 'cifar-')}-{kind}.tar.gz"
    members = list(zip(CIFAR_PARTS[name][kind], parts, strict=True))
    with tarfile.open(archive, "w:gz") as tar:
        for member, (pixels, coarse, fine) in reversed(members):  # any order works
            if kind == "binary":
                labels = [fine] if name == "cifar10" else [coarse, fine]
                columns = [x[:, None].astype(np.uint8) for x in labels]
                content = np.concatenate([*columns, pixels], axis=1).tobytes()
            elif name == "cifar10":
                content = pickle.dumps(
                    {b"data": pixels, b"labels": fine.tolist()}, protocol=2
                )
            else:
                content = pickle.dumps(
                    {
                        b"data": pixels,
                        b"coarse_labels": coarse.tolist(),
                        b"fine_labels": fine.tolist(),
                    },
                    protocol=2,
                )
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return parts


class TinyDigits(tfds.core.GeneratorBasedBuilder):
    """A data set for TFDS to prepare: grey or coloured PNG images of three classes."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="grey"),
        tfds.core.BuilderConfig(name="colour"),
    ]

    def _channels(self):
        return {"grey": 1, "colour": 3}[self.builder_config.name]

    def _info(self):
        shape = (8, 8, self._channels())
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(9, 0),
            "test": self._generate_examples(6, 1),
        }

    def _generate_examples(self, n, seed):
        for i, image in enumerate(random_images(n, 8, self._channels(), seed)):
            file = io.BytesIO(encode(image))
            yield i, {"id": str(i), "image": file, "label": i % 3}


def write_tfds(data_dir, config="colour"):
    """Prepares `TinyDigits` as ArrayRecord with TFDS itself, and returns its folder."""
    builder = TinyDigits(data_dir=data_dir, config=config, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


def write_imagenet(data_dir, num_train=6, num_validation=4):
    """Prepares a data set named like ImageNet: JPEG files of several sizes."""
    with tfds.core.registered.skip_registration():

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                image = tfds.features.Image(encoding_format="jpeg")
                label = tfds.features.ClassLabel(num_classes=1000)
                features = {"image": image, "label": label}
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(num_train, 0),
                    "validation": self._generate_examples(num_validation, 500),
                    "test": self._generate_examples(2, None),
                }

            def _generate_examples(self, n, first):
                for i in range(n):
                    pixels = np.full((40 + 3 * i, 60, 3), 20 * i, np.uint8)
                    file = io.BytesIO(encode(pixels, "JPEG"))
                    yield (
                        i,
                        {"image": file, "label": -1 if first is None else first + i},
                    )

    builder = Imagenet2012(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()


def to_tfrecord(folder):
    """Rewrites a prepared ArrayRecord folder as TFRecord, with the same protos."""
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        template = split.get("filepathTemplate", "")
        split["filepathTemplate"] = template.replace("array_record", "tfrecord")
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for path in folder.glob("*.array_record*"):
        records = array_record_data_source.ArrayRecordDataSource(str(path))
        with (folder / path.name.replace("array_record", "tfrecord")).open(
            "wb"
        ) as file:
            for i in range(len(records)):
                length = struct.pack("<Q", len(records[i]))
                file.write(length + _masked_crc(length))
                file.write(records[i] + _masked_crc(records[i]))
        path.unlink()


def _masked_crc(data):
    """Computes CRC-32C, rotated and offset as in the TFRecord format."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


WNIDS = [f"n{i:08d}" for i in range(200)]


def write_tiny_imagenet(folder, *, per_class=1, validation=5):
    """Writes the zip in its authors' layout, one constant colour per image."""
    root = "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    order = rng.permutation(200)  # wnids.txt is not sorted in the published file
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w") as files:
        files.writestr(f"{root}/wnids.txt", "\n".join(WNIDS[i] for i in order) + "\n")
        files.writestr(f"{root}/words.txt", "n00000000\tentity\n")
        for label, wnid in enumerate(WNIDS):
            files.writestr(f"{root}/train/{wnid}/{wnid}_boxes.txt", "0\t0\t1\t1\n")
            for i in range(per_class):
                image = np.full((64, 64, 3), label, np.uint8)
                path = f"{root}/train/{wnid}/images/{wnid}_{i}.JPEG"
                files.writestr(path, encode(image, "JPEG"))
        rows = []
        for i in range(validation):
            # Every other one is grey, like some of the published ones.
            image = np.full((64, 64, 3 if i % 2 else 1), 40 * i, np.uint8)
            files.writestr(f"{root}/val/images/val_{i}.JPEG", encode(image, "JPEG"))
            rows.append(f"val_{i}.JPEG\t{WNIDS[7 * i]}\t0\t0\t62\t62\n")
        files.writestr(f"{root}/val/val_annotations.txt", "".join(rows))
        files.writestr(f"{root}/test/images/test_0.JPEG", encode(image, "JPEG"))


def write_folders(root, sizes=(8,), test="val"):
    """Writes class folders, nested as in Tiny-ImageNet; image sizes alternate."""
    for split, n in (("train", 4), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name / "images"
            folder.mkdir(parents=True)
            for i in range(n):
                side = sizes[i % len(sizes)]
                pixels = np.full((side, side, 3), 100 * label + i, np.uint8)
                (folder / f"{i}.png").write_bytes(encode(pixels))
            (folder / "notes.txt").write_text("no image")
