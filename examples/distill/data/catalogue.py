"""Data sets by name."""

import difflib
from collections.abc import Callable
from pathlib import Path

from examples.distill.data import idx, packaged
from examples.distill.data.dataset import Dataset
from examples.distill.data.synthetic import SIZES, synthetic

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist5k": lambda _: packaged.mnist5k(),
    "digits": lambda _: packaged.digits(),
    "fashion_mnist": idx.fashion_mnist,
    "mnist": idx.mnist,
    **{name: lambda _, name=name: synthetic(name) for name in SIZES},
}


def load(name: str, *, data_dir: Path | str | None = None) -> Dataset:
    """Load a data set into memory.

    Args:
        name: A key of `DATASETS`.
        data_dir: Folder with the files of data sets that come with no package.

    Returns:
        The images and labels, on the host.

    Raises:
        FileNotFoundError: If files are missing; it says which, where and how to get
            them.
        ValueError: If there is no data set of that name.

    Examples:
        >>> load("digits").train_images.shape
        (1297, 8, 8, 1)
    """
    data_dir = None if data_dir is None else Path(data_dir).expanduser()
    if name in DATASETS:
        return DATASETS[name](data_dir)
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"no data set named {name!r}; {hint}there are: {', '.join(DATASETS)}"
    )
