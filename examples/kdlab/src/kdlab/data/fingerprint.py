"""Short hashes of data, for the names of files computed from them."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from kdlab.basics.reading import reading

CONTENTS = 256 * 2**20  # bytes; of larger data only sizes and times are hashed


def hash_arrays(arrays: PyTree, *rest: Any) -> str:
    """Hashes the bytes, dtypes, shapes and names of arrays.

    Args:
        arrays: Any tree of arrays.
        *rest: Other objects to hash, by their ``repr``.

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
    """Hashes files by their contents, or by sizes and times if they are large.

    Args:
        paths: The files, in a fixed order.
        root: Folder to which their names are relative, so that a moved folder keeps its
            hash.

    Returns:
        24 hexadecimal digits. Beyond 256 MiB in total the contents are not read, so
        that a copy with new modification times has another hash.
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
