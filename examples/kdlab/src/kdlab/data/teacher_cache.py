"""Outputs of a fixed teacher, computed once and kept on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import PyTree

from kdlab.data.dataset import Dataset
from kdlab.data.fingerprint import hash_arrays
from kdlab.data.kept import keep, short_name


def cached_outputs(
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
    """Outputs of the teacher on the training images, from disk if they are there.

    The teacher is the larger network, so skipping its forward pass in every epoch but
    the first is worth much. It is right only if the teacher would see the same pixels
    again: without augmentation, or with one that a seed and the epoch determine, of
    which then each epoch has a file of its own.

    Args:
        compute: Returns named arrays, for example ``{"logits": [n, c]}``; called only
            if the file is not there.
        params: All variables of the teacher, batch statistics included: a hash of them
            is part of the file's name.
        dataset: What the teacher sees; its name and its fingerprint enter the hash.
        cache_dir: Where the files are; made if need be.
        settings: What else decides the outputs, such as the name of the network and
            the type that it computes in.
        augmentation: Name of the augmentation; ``none`` if there is none.
        seed: What determines the augmentation, with the epoch.
        epoch: Epoch of the augmented images.

    Returns:
        What `compute` returned.

    Raises:
        ValueError: If the images are augmented and `seed` or `epoch` is missing.

    Examples:
        >>> import functools, tempfile
        >>> from kdlab.data import load
        >>> folder = tempfile.TemporaryDirectory()
        >>> cached = functools.partial(
        ...     cached_outputs,
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
            f"{augmentation!r}: it would see other pixels in each epoch. Pass the seed "
            "and the epoch that determine it, or switch it off, or run the teacher in "
            "every step"
        )
    key = (augmentation, seed, epoch) if augmentation != "none" else (augmentation,)
    decisive = dataset.name, dataset.fingerprint, sorted((settings or {}).items()), key
    name = f"{short_name(dataset.name)}-{hash_arrays(params, decisive)}.npz"
    return keep(Path(cache_dir) / name, compute)
