"""Caches arrays in files."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kdlab.basics.reading import UserError, reading
from kdlab.basics.writing import replacing

_NAME = "name of the file"  # stored inside it, so that no other file is mistaken for it
_log = logging.getLogger(__name__)


def load_or_compute(
    path: Path, compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Reads arrays from a file, or computes them and writes the file.

    A file that is damaged or was written by another version is replaced with a warning.

    Args:
        path: The ``.npz`` file, whose name must identify the arrays. Its folder is
            created if necessary.
        compute: Returns the arrays; called only if the file cannot be read.

    Returns:
        The arrays.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "a.npz"
        >>> load_or_compute(path, lambda: {"x": np.ones(2)})["x"].tolist()
        [1.0, 1.0]
        >>> load_or_compute(path, lambda: {"x": np.zeros(2)})["x"].tolist()
        [1.0, 1.0]
        >>> folder.cleanup()
    """
    if path.is_file():
        try:
            return _read(path)
        except UserError as error:
            _log.warning("%s", error)
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{_NAME: np.asarray(path.name)})
    return arrays


def short_name(name: str) -> str:
    """Shortens the name of a data set to a part of a file name.

    Examples:
        >>> short_name("stream:folder:/home/me/my images")
        'stream-folder-home-me-my-images'
    """
    return re.sub(r"[^\w.+-]+", "-", name)[-40:]


def _read(path: Path) -> dict[str, np.ndarray]:
    with reading(path, "It is computed again."), path.open("rb") as file:
        with np.load(file) as content:
            arrays = dict(content)
        if arrays.pop(_NAME).item() != path.name:
            raise ValueError("it was written under another name")
        return arrays
