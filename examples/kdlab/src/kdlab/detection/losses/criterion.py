"""The task loss of a detector: focal, L1 and GIoU over all levels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdlab.data.detection.batch import Targets
from kdlab.detection.losses.boxes import giou, to_corners
from kdlab.detection.losses.matching import (
    CLASS_WEIGHT,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    GIOU_WEIGHT,
    L1_WEIGHT,
    match,
)


class LevelLosses(NamedTuple):
    """The three losses of each level, without their weights, ``[levels]``.

    Attributes:
        focal: Loss of the classes.
        l1: Distance of the boxes.
        giou: One minus the generalised intersection over union.
    """

    focal: Array
    l1: Array
    giou: Array

    @property
    def total(self) -> Array:
        """The task loss: the weighted sum over levels, a scalar."""
        return (
            CLASS_WEIGHT * jnp.sum(self.focal)
            + L1_WEIGHT * jnp.sum(self.l1)
            + GIOU_WEIGHT * jnp.sum(self.giou)
        )


def focal_loss(logits: Float[Array, "*n c"], targets: Float[Array, "*n c"]) -> Array:
    r"""Computes the focal loss of each logit.

    .. math:: \alpha_t (1 - p_t)^\gamma \, (-\log p_t), \quad \alpha = 1/4, \gamma = 2

    Args:
        logits: Logits.
        targets: 1 for the class of a matched object, 0 elsewhere.

    Returns:
        Losses of the same shape.

    Examples:
        >>> print(focal_loss(jnp.zeros(2), jnp.array([0.0, 1.0])).round(4))
        [0.13   0.0433]

    References:
        Lin et al., `Focal Loss <https://arxiv.org/abs/1708.02002>`_, ICCV 2017, Eq. 5
    """
    return optax.losses.sigmoid_focal_loss(
        logits, targets, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA
    )


def detection_losses(
    logits: Float[Array, "levels b n c"],
    boxes: Float[Array, "levels b n 4"],
    targets: Targets,
) -> LevelLosses:
    """Computes the losses of every level, each matched with the objects by itself.

    Sums over the batch are divided by its number of objects, at least 1. Under
    ``jax.jit`` with a sharded batch this is the number in the global batch.

    Args:
        logits: Logits by level.
        boxes: Boxes by level: centre, width, height.
        targets: The objects.

    Returns:
        The losses of each level.

    Raises:
        ValueError: See :func:`kdlab.detection.losses.matching.match_image`.
    """
    queries = match(logits, boxes, targets)
    present = targets.present.astype(boxes.dtype)
    count = jnp.maximum(jnp.sum(present), 1)

    def per_image(
        logits: Array, boxes: Array, queries: Array, *objects: Array
    ) -> tuple:
        labels, targets, present = objects
        hits = jnp.zeros_like(logits).at[queries, labels].add(present)
        found = boxes[queries]
        overlap = giou(to_corners(found), to_corners(targets))
        return (
            jnp.sum(focal_loss(logits, hits)),
            jnp.sum(jnp.sum(jnp.abs(found - targets), axis=-1) * present),
            jnp.sum((1 - overlap) * present),
        )

    over_levels = jax.vmap(jax.vmap(per_image), (0, 0, 0, None, None, None))
    sums = over_levels(logits, boxes, queries, targets.labels, targets.boxes, present)
    return LevelLosses(*(jnp.sum(x, axis=1) / count for x in sums))
