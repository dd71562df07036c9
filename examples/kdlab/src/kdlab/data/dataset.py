"""Classification data sets in host memory, their subsets and label noise."""

import dataclasses
from functools import cached_property

import numpy as np
from jaxtyping import Int32, UInt8

from kdlab.data.fingerprint import hash_arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in host memory.

    Images stay ``uint8``, which takes a quarter of the memory and transfer of float32.
    :func:`~kdlab.data.augmentation.crops.normalize` converts them inside the step.

    Attributes:
        name: Name under which it was requested.
        train_images: ``[n, h, w, c]``.
        train_labels: ``[n]``.
        test_images: ``[m, h, w, c]``.
        test_labels: ``[m]``.
        num_classes: Labels are in ``range(num_classes)``.
        mean: Mean per channel of images in [0, 1].
        std: Standard deviation per channel of images in [0, 1].
    """

    name: str
    train_images: UInt8[np.ndarray, "n h w c"]
    train_labels: Int32[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m h w c"]
    test_labels: Int32[np.ndarray, " m"]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses arrays that contradict each other."""
        for split in ("train", "test"):
            images = getattr(self, f"{split}_images")
            labels = getattr(self, f"{split}_labels")
            if images.dtype != np.uint8 or images.ndim != 4:
                raise ValueError(
                    f"{self.name}: {split} images are {images.dtype}"
                    f"{list(images.shape)}, expected uint8[n, h, w, c]"
                )
            if not len(images):
                raise ValueError(f"{self.name}: there are no {split} images")
            if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{self.name}: {split} labels are {labels.dtype}"
                    f"{list(labels.shape)}, expected int32[{len(images)}]"
                )
            if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(
                    f"{self.name}: {split} labels run from {labels.min()} to "
                    f"{labels.max()}, expected 0 to {self.num_classes - 1}"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"{self.name}: train images are {self.train_images.shape[1:]}, "
                f"test images {self.test_images.shape[1:]}; expected one shape"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all images, labels and normalisation constants."""
        arrays = self.train_images, self.train_labels, self.test_images
        moments = self.num_classes, tuple(self.mean), tuple(self.std)
        return hash_arrays((*arrays, self.test_labels), moments)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train_labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels


def channel_moments(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and standard deviation per channel of images scaled to [0, 1].

    A constant channel gets the standard deviation 1, so that normalising stays finite.

    Args:
        images: ``[n, h, w, c]``.

    Returns:
        ``(mean, std)``, one number per channel.

    Examples:
        >>> import numpy as np
        >>> images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
        >>> channel_moments(images)
        ((0.5,), (0.5,))
    """
    levels = np.arange(256) / 255.0
    means, stds = [], []
    for channel in np.moveaxis(images, -1, 0):
        # From a histogram: exact, without a float copy of the whole set.
        share = np.bincount(channel.ravel(), minlength=256) / channel.size
        mean = float(share @ levels)
        std = float(np.sqrt(share @ (levels - mean) ** 2))
        means.append(mean)
        stds.append(std if std > 0 else 1.0)
    return tuple(means), tuple(stds)


def stratified_order(
    labels: Int32[np.ndarray, " n"], seed: int
) -> Int32[np.ndarray, " n"]:
    """Draws a random order in which the classes alternate until small ones run out.

    Every prefix is then as balanced as the set allows, and prefixes are nested.

    Args:
        labels: ``[n]``.
        seed: Seed of the order.

    Returns:
        A permutation of ``range(n)``.

    Examples:
        >>> import numpy as np
        >>> labels = np.array([0, 0, 0, 1, 1, 1], np.int32)
        >>> sorted(labels[stratified_order(labels, seed=0)[:2]].tolist())
        [0, 1]
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, counts = np.unique(labels, return_counts=True)
    turn = np.concatenate([np.arange(count) for count in counts])
    # Within a round the order of the classes is random as well, so that no class is
    # favoured when a prefix is not a multiple of the number of classes.
    return by_class[np.lexsort((rng.random(len(labels)), turn))].astype(np.int32)


def subset(dataset: Dataset, n: int, seed: int) -> Dataset:
    """Keeps a class-balanced subset of the training images and the whole test set.

    Class sizes differ by at most one. With the same seed a smaller subset is contained
    in a larger one, so that curves over `n` are not blurred by a change of images.

    Args:
        dataset: The data set.
        n: Number of training images to keep.
        seed: Seed of the choice.

    Returns:
        The data set with ``n`` training images and the same `mean` and `std`.

    Raises:
        ValueError: If a class has too few images for a balanced subset.

    Examples:
        >>> import numpy as np
        >>> from kdlab.data import load
        >>> np.bincount(subset(load("digits"), 20, seed=0).train_labels).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    counts = np.bincount(dataset.train_labels, minlength=dataset.num_classes)
    spare = n - dataset.num_classes * int(counts.min())
    if n < 1 or spare > int(np.sum(counts > counts.min())):
        raise ValueError(
            f"no balanced subset of {n} images in {dataset.name}: its smallest of "
            f"{dataset.num_classes} classes has {counts.min()}; take n from 1 to "
            f"{dataset.num_classes * int(counts.min())} (--labels)"
        )
    chosen = np.sort(stratified_order(dataset.train_labels, seed)[:n])
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[chosen],
        train_labels=dataset.train_labels[chosen],
    )


def corrupt_labels(
    labels: Int32[np.ndarray, " n"], rate: float, num_classes: int, seed: int
) -> Int32[np.ndarray, " n"]:
    """Replaces a fraction of the labels by uniform draws: symmetric label noise.

    Exactly ``round(rate * n)`` labels are redrawn from all classes, so that about one
    in `num_classes` of them stays the same.

    Args:
        labels: ``[n]``; not modified.
        rate: Fraction to redraw, in [0, 1].
        num_classes: Number of classes to draw from.
        seed: Seed of the choice and of the new labels.

    Returns:
        New labels, ``[n]``.

    Raises:
        ValueError: If `rate` is not a fraction.

    Examples:
        >>> import numpy as np
        >>> noisy = corrupt_labels(np.zeros(1000, np.int32), 0.4, 10, seed=0)
        >>> print(f"{(noisy != 0).mean():.2f}")
        0.37

    References:
        van Rooyen, Menon and Williamson, `Learning with Symmetric Label Noise
        <https://arxiv.org/abs/1505.07634>`_, 2015
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected a fraction from 0 to 1")
    rng = np.random.default_rng(seed)
    redrawn = rng.permutation(len(labels))[: round(rate * len(labels))]
    noisy = labels.copy()
    noisy[redrawn] = rng.integers(num_classes, size=len(redrawn), dtype=np.int32)
    return noisy
