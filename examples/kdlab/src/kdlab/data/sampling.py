"""Selects the examples of each batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


class IndexBatch(NamedTuple):
    """Indices into the data set, and sample weights, 0 for padding."""

    indices: Int32[np.ndarray, " b"]
    weights: Float32[np.ndarray, " b"]


def num_batches(num_examples: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Returns the number of steps in an epoch.

    Examples:
        >>> num_batches(50_000, 64), num_batches(50_000, 64, drop_last=True)
        (782, 781)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    full, rest = divmod(num_examples, batch_size)
    return full + (rest > 0 and not drop_last)


def batches(
    num_examples: int,
    batch_size: int,
    *,
    seed: int | None,
    epoch: int = 0,
    start: int = 0,
    repeats: int = 1,
    drop_last: bool = False,
) -> Iterator[IndexBatch]:
    """Yields the index batches of one epoch, all of the same size.

    The order is a function of ``(seed, epoch)`` alone, so only ``(epoch, step)`` needs
    to be saved to resume.

    Args:
        num_examples: Size of the data set.
        batch_size: Size of every batch. A last partial batch is padded at weight 0
            from the beginning of the epoch, so that a jitted step sees a single shape
            and BatchNorm a full batch of different images.
        seed: Seed of the permutations; None keeps the order of the data set.
        epoch: Index of the epoch, from 0; each has its own permutation.
        start: Step to start at, when resuming.
        repeats: Times that each example follows itself; the epoch keeps its length.
        drop_last: Whether to drop a last partial batch instead.

    Yields:
        Indices and weights of one batch.

    Examples:
        >>> for batch in batches(5, 2, seed=None):
        ...     print(batch.indices, batch.weights)
        [0 1] [1. 1.]
        [2 3] [1. 1.]
        [4 0] [1. 0.]
    """
    steps = num_batches(num_examples, batch_size, drop_last=drop_last)
    order = np.arange(num_examples, dtype=np.int32)
    if seed is not None:
        order = np.random.default_rng((seed, epoch)).permutation(order)
    order = np.repeat(order, repeats)[:num_examples]
    for step in range(start, steps):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        weights = (places < num_examples).astype(np.float32)
        yield IndexBatch(order[places % num_examples], weights)
