"""Reads TFRecord files in random order, without TensorFlow."""

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from kdlab.basics.reading import reading

_HEADER = 8 + 4  # length, its checksum
_FOOTER = 4  # checksum of the record


class TFRecords:
    """The records of several TFRecord files, one after the other.

    A record consists of its length as a little-endian 64-bit integer, a checksum of the
    length, the bytes, and a checksum of the bytes. The files are indexed once by
    following the lengths; the checksums (masked CRC-32C) are not verified.

    Args:
        paths: Paths of the files.

    Raises:
        ValueError: If a file is truncated.

    References:
        `TFRecord and tf.train.Example
        <https://www.tensorflow.org/tutorials/load_data/tfrecord>`_
    """

    def __init__(self, paths: Sequence[Path]):
        self._maps, spans = [], []
        for number, path in enumerate(paths):
            with reading(path, "Prepare the data set again."):
                content = _map(path)
                spans += [(number, *span) for span in _spans(content)]
            self._maps.append(content)
        self._spans = np.array(spans, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._spans)

    def __getitem__(self, index: SupportsIndex) -> bytes:
        """Returns the bytes of one record."""
        number, start, end = self._spans[index.__index__()].tolist()
        return self._maps[number][start:end]


def _map(path: Path) -> mmap.mmap | bytes:
    if path.stat().st_size == 0:  # an empty shard cannot be mapped
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _spans(content: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Yields the beginning and the end of each record of a file."""
    position = 0
    while position < len(content):
        header = content[position : position + 8]
        length = struct.unpack("<Q", header)[0] if len(header) == 8 else 0
        start = position + _HEADER
        position = start + length + _FOOTER
        if position > len(content):
            raise ValueError("it is truncated")
        yield start, start + length
