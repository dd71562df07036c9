"""Matches the queries of a detector with the objects of an image, inside the step."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from kdlab.data.detection.batch import Targets
from kdlab.detection.losses.boxes import giou, pairwise, to_corners

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
"""Weights of the three costs, and of the three losses."""

_FLOOR = 1e-8  # in the logarithms of the cost
_ABSENT = 0.0  # cost of every query for padding: any constant leaves the optimum alone


def matching_cost(
    logits: Float[Array, "n c"],
    boxes: Float[Array, "n 4"],
    labels: Int[Array, " t"],
    targets: Float[Array, "t 4"],
) -> Float[Array, "n t"]:
    r"""Computes what it costs to match each query with each object.

    .. math::
        C = 5 \lVert b - \hat b \rVert_1 - 2\, \mathrm{GIoU}(b, \hat b) + 2 (
            -\alpha (1-p)^2 \log p + (1-\alpha)\, p^2 \log(1-p))

    with the probability :math:`p` of the object's class and :math:`\alpha = 1/4`.

    Args:
        logits: Logits of the queries.
        boxes: Their boxes: centre, width, height.
        labels: Classes of the objects.
        targets: Boxes of the objects.

    Returns:
        The costs.

    Examples:
        >>> boxes = jnp.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]])
        >>> cost = matching_cost(jnp.zeros((2, 3)), boxes, jnp.array([1]), boxes[:1])
        >>> print(*(f"{x:.3f}" for x in cost[:, 0]))
        -2.173 4.187

    References:
        Zhu et al., `Deformable DETR <https://arxiv.org/abs/2010.04159>`_, ICLR 2021
    """
    p = jax.nn.sigmoid(logits[:, labels])
    positive = FOCAL_ALPHA * (1 - p) ** 2 * -jnp.log(p + _FLOOR)
    negative = (1 - FOCAL_ALPHA) * p**2 * -jnp.log(1 - p + _FLOOR)
    distance = jnp.sum(jnp.abs(boxes[:, None] - targets[None]), axis=-1)
    overlap = pairwise(giou, to_corners(boxes), to_corners(targets))
    return (
        L1_WEIGHT * distance
        + CLASS_WEIGHT * (positive - negative)
        - GIOU_WEIGHT * overlap
    )


def match_image(
    logits: Float[Array, "n c"],
    boxes: Float[Array, "n 4"],
    labels: Int[Array, " t"],
    targets: Float[Array, "t 4"],
    present: Array,
) -> Int[Array, " t"]:
    """Finds the query of each object at the least total cost.

    Args:
        logits: See :func:`matching_cost`.
        boxes: See :func:`matching_cost`.
        labels: See :func:`matching_cost`.
        targets: See :func:`matching_cost`.
        present: Which objects there are, ``[t]`` bools; the others are padding.

    Returns:
        The positions of the queries, without repetition; those of padding are left
        over. They carry no gradient.

    Raises:
        ValueError: If there are fewer queries than entries for objects.

    Examples:
        >>> boxes = jnp.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]])
        >>> logits, labels = jnp.zeros((2, 3)), jnp.array([1, 0])
        >>> present = jnp.array([True, True])
        >>> print(match_image(logits, boxes, labels, boxes[::-1], present))
        [1 0]
    """
    if len(labels) > len(logits):
        raise ValueError(
            f"{len(labels)} entries for objects but only {len(logits)} queries: give "
            "the detector more DET tokens, or keep fewer objects per image."
        )
    cost = matching_cost(logits, boxes, labels, targets)
    cost = jax.lax.stop_gradient(jnp.where(present[None], cost, _ABSENT))
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros_like(rows).at[columns].set(rows)


def match(
    logits: Float[Array, "levels b n c"],
    boxes: Float[Array, "levels b n 4"],
    targets: Targets,
) -> Int[Array, "levels b t"]:
    """Matches every image of a batch, for every level by itself.

    Args:
        logits: Logits of the queries by level.
        boxes: Their boxes: centre, width, height.
        targets: The objects.

    Returns:
        The position of the query of each object; see :func:`match_image`.
    """
    over_levels = jax.vmap(jax.vmap(match_image), (0, 0, None, None, None))
    return over_levels(logits, boxes, targets.labels, targets.boxes, targets.present)
