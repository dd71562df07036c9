"""Caches the outputs of a fixed teacher on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import PyTree

from kdlab.data.array_cache import load_or_compute, short_name
from kdlab.data.dataset import Dataset
from kdlab.data.fingerprint import hash_arrays


def cache_outputs(
    compute: Callable[[], Mapping[str, np.ndarray]],
    *,
    params: PyTree,
    dataset: Dataset,
    cache_dir: Path,
    settings: Mapping[str, object] | None = None,
    augmentation: str = "none",
    seed: int | None = None,
    epoch: int | None = None,
) -> dict[str, np.ndarray]:
    """Returns the teacher's outputs on the training images, from disk if possible.

    Since the teacher is the larger network, skipping its forward pass after the first
    epoch saves much time. This is correct only if the teacher would see the same pixels
    again: without augmentation, or with one that seed and epoch determine, in which
    case each epoch has its own file.

    Args:
        compute: Returns named arrays, for example ``{"logits": [n, c]}``; called only
            if there is no file.
        params: All variables of the teacher, including batch statistics; hashed into
            the name of the file.
        dataset: Data set of the teacher; its name and fingerprint are hashed as well.
        cache_dir: Folder of the files; created if necessary.
        settings: Whatever else affects the outputs, such as the name of the network and
            the dtype of its computation.
        augmentation: Name of the augmentation, or ``none``.
        seed: Seed of the augmentation.
        epoch: Epoch of the augmented images.

    Returns:
        The arrays of `compute`.

    Raises:
        ValueError: If the images are augmented and `seed` or `epoch` is missing.

    Examples:
        >>> import functools, tempfile
        >>> from kdlab.data import load
        >>> folder = tempfile.TemporaryDirectory()
        >>> cached = functools.partial(
        ...     cache_outputs,
        ...     params={"kernel": np.ones(3)},
        ...     dataset=load("digits"),
        ...     cache_dir=Path(folder.name),
        ... )
        >>> first = cached(lambda: {"logits": np.full(1, 1.5)})
        >>> again = cached(lambda: {"logits": np.full(1, 2.5)})  # not called
        >>> again["logits"].item()
        1.5
        >>> folder.cleanup()
    """
    if augmentation != "none" and (seed is None or epoch is None):
        raise ValueError(
            f"the teacher's outputs cannot be cached under the augmentation "
            f"{augmentation!r}: it sees other pixels in each epoch. Pass the seed and "
            "the epoch that determine the augmentation, switch it off, or run the "
            "teacher in every step"
        )
    key = (augmentation, seed, epoch) if augmentation != "none" else (augmentation,)
    decisive = dataset.name, dataset.fingerprint, sorted((settings or {}).items()), key
    name = f"{short_name(dataset.name)}-{hash_arrays(params, decisive)}.npz"
    return load_or_compute(Path(cache_dir) / name, compute)
