"""Short hashes of data, for the names of what was computed from them."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from kdlab.basics.reading import reading

CONTENTS = 256 * 2**20  # bytes that are read; of more data only sizes and times


def hash_arrays(arrays: PyTree, *rest: Any) -> str:
    """Hash of the bytes, types, shapes and names of arrays.

    Args:
        arrays: Any tree.
        *rest: Whatever else decides; its text is hashed.

    Returns:
        24 hexadecimal digits.

    Examples:
        >>> import numpy as np
        >>> hash_arrays([np.zeros(2)]) == hash_arrays([np.zeros(2, np.int64)])
        False
    """
    digest = hashlib.blake2b(repr(rest).encode(), digest_size=12)
    for path, leaf in jax.tree.leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        header = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(header.encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def hash_files(paths: Iterable[Path], *, root: Path) -> str:
    """Hash of files: of their contents, or of sizes and times if they are large.

    Args:
        paths: The files, in an order that is always the same.
        root: What their names are taken from, so that a moved folder keeps its hash.

    Returns:
        24 hexadecimal digits. Beyond 256 MiB in all, contents are not read: a copy
        with new times of modification then has another hash.
    """
    with reading(root):
        files = [(path, path.stat()) for path in paths]
        read = sum(stat.st_size for _, stat in files) <= CONTENTS
        digest = hashlib.blake2b(digest_size=12)
        for path, stat in files:
            time = "" if read else stat.st_mtime_ns
            line = f"{os.path.relpath(path, root)}\0{stat.st_size}\0{time}\0"
            digest.update(line.encode(errors="surrogateescape"))
            if read:
                digest.update(path.read_bytes())
        return digest.hexdigest()
