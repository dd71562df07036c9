"""Mixed images and their targets, inside a jitted step: mixup, CutMix, smoothing.

Each image is mixed with the one at the mirrored place of the batch, and the whole batch
with one ratio, as in timm: image i with image B - 1 - i.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdlab.data.augmentation.erasing import erase

Pictures = Float[Array, "b h w c"]


class Mixing(NamedTuple):
    """How images and labels are mixed; by default not at all.

    Attributes:
        mixup: Parameter of the beta distribution of mixup's ratio; 0: no mixup.
        cutmix: Parameter of CutMix's; 0: no CutMix.
        probability: Probability that a batch is mixed.
        switch: Probability of CutMix where both are possible.
        smoothing: Share of each target that is spread over all classes.
        erasing: Probability that a box of an image is replaced by noise, before.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    smoothing: float = 0.0
    erasing: float = 0.0


NOT_MIXED = Mixing()


class Box(NamedTuple):
    """A rectangle of pixels: first and last row and column, the last exclusive."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def mix(
    key: PRNGKeyArray,
    images: Pictures,
    labels: Int[Array, " b"],
    mixing: Mixing,
    num_classes: int,
) -> tuple[Pictures, Array]:
    """Erases and mixes a batch of normalised images.

    Args:
        key: Random key of the ratio, of the choice and of CutMix's box.
        images: ``[b, h, w, c]``.
        labels: Class indices, ``[b]``.
        mixing: What to do.
        num_classes: Number of classes.

    Returns:
        Images, and targets ``[b, num_classes]``; if nothing is to be done the images
        and the class indices.

    References:
        Zhang et al., `mixup <https://arxiv.org/abs/1710.09412>`_, ICLR 2018;
        Yun et al., `CutMix <https://arxiv.org/abs/1905.04899>`_, ICCV 2019
    """
    choice, used, ratio, place, erased = jax.random.split(key, 5)
    if mixing.erasing:
        images = erase(erased, images, probability=mixing.erasing)
    if not (mixing.mixup or mixing.cutmix):
        if not mixing.smoothing:
            return images, labels
        return images, targets(labels, num_classes, 1.0, mixing.smoothing)
    share = mixing.switch if mixing.mixup and mixing.cutmix else float(not mixing.mixup)
    cut = jax.random.bernoulli(choice, share)
    alpha = jnp.where(cut, mixing.cutmix, mixing.mixup)
    kept = jax.random.beta(ratio, alpha, alpha)
    kept = jnp.where(jax.random.bernoulli(used, mixing.probability), kept, 1.0)
    height, width = images.shape[1:3]
    centre = jax.random.randint(place, (2,), 0, jnp.array([height, width]))
    box = cutmix_box(height, width, kept, centre[0], centre[1])
    outside = kept_area(box, height, width)
    mixed = jnp.where(cut, cutmix(images, box), mixup(images, kept))
    kept = jnp.where(cut, outside, kept)
    return mixed, targets(labels, num_classes, kept, mixing.smoothing)


def mixup(images: Pictures, kept: jax.typing.ArrayLike) -> Pictures:
    r"""Averages each image with its partner, :math:`\lambda x_i + (1-\lambda) x_j`."""
    kept = jnp.asarray(kept)
    return kept * images + (1 - kept) * images[::-1]


def cutmix(images: Pictures, box: Box) -> Pictures:
    """Pastes a box of the partner into each image."""
    rows, columns = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
    inside = ((rows >= box.top) & (rows < box.bottom))[:, None] & (
        (columns >= box.left) & (columns < box.right)
    )[None]
    return jnp.where(inside[None, :, :, None], images[::-1], images)


def cutmix_box(
    height: int,
    width: int,
    kept: jax.typing.ArrayLike,
    row: jax.typing.ArrayLike,
    column: jax.typing.ArrayLike,
    *,
    even: bool = True,
) -> Box:
    r"""Returns the box whose sides are :math:`\sqrt{1 - \lambda}` of the image's.

    Args:
        height: Height of the images.
        width: Width of the images.
        kept: :math:`\lambda`, the share of the image to keep.
        row: Row of the centre.
        column: Column of the centre.
        even: Whether half a side is rounded down on either side of the centre, as in
            the version of timm with which DeiT was trained; later ones keep the side.

    Returns:
        The box, cut off at the borders.

    Examples:
        >>> [int(x) for x in cutmix_box(224, 224, 0.3, 10, 200)]
        [0, 103, 107, 224]
        >>> [int(x) for x in cutmix_box(224, 224, 0.3, 10, 200, even=False)]
        [0, 104, 107, 224]
    """

    def span(size: int, centre: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        side = jnp.floor(size * jnp.sqrt(1 - jnp.asarray(kept))).astype(jnp.int32)
        first = jnp.asarray(centre, jnp.int32) - side // 2
        last = first + (2 * (side // 2) if even else side)
        return jnp.clip(first, 0, size), jnp.clip(last, 0, size)

    return Box(*span(height, row), *span(width, column))


def kept_area(box: Box, height: int, width: int) -> jax.Array:
    """Returns the share of an image outside the box."""
    area = (box.bottom - box.top) * (box.right - box.left)
    return 1 - area.astype(jnp.float32) / (height * width)


def targets(
    labels: Int[Array, " b"],
    num_classes: int,
    kept: jax.typing.ArrayLike,
    smoothing: float,
) -> Float[Array, "b c"]:
    r"""Returns the targets of a mixed batch.

    .. math:: t_i = \lambda y_i + (1 - \lambda) y_{B-1-i}, \qquad
        y_{ic} = (1 - s) [c = l_i] + \frac{s}{C}

    Args:
        labels: Class indices :math:`l`, ``[b]``.
        num_classes: :math:`C`.
        kept: :math:`\lambda`.
        smoothing: :math:`s`.

    Returns:
        Distributions, ``[b, c]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> row = targets(jnp.array([3, 0]), 10, 0.3, 0.1)[0]
        >>> print(", ".join(f"{x:.2f}" for x in row[:4]))
        0.64, 0.01, 0.01, 0.28
    """
    own = jax.nn.one_hot(labels, num_classes) * (1 - smoothing)
    own = own + smoothing / num_classes
    kept = jnp.asarray(kept)
    return kept * own + (1 - kept) * own[::-1]
