"""Boxes: corners, intersection over union, and its generalisation."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Boxes = Float[Array, "*n 4"]
Areas = Float[Array, "*n"]

EPS = 1e-7  # floor of areas that divide


def to_corners(boxes: Boxes) -> Boxes:
    """Converts boxes from centre, width and height to their corners.

    Args:
        boxes: ``(cx, cy, w, h)``, ``[..., 4]``.

    Returns:
        ``(x0, y0, x1, y1)``, ``[..., 4]``.

    Examples:
        >>> print(to_corners(jnp.array([0.5, 0.5, 0.2, 0.4])))
        [0.4 0.3 0.6 0.7]
    """
    centers, sides = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([centers - sides / 2, centers + sides / 2], axis=-1)


def iou(a: Boxes, b: Boxes) -> Areas:
    r"""Computes the intersection over union :math:`|A \cap B| / |A \cup B|`.

    Args:
        a: Corners, ``[..., 4]``.
        b: Corners of a shape that broadcasts with ``a``.

    Returns:
        Values in [0, 1], ``[...]``; 0 for boxes without area.

    Examples:
        >>> a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 2.0])
        >>> print(f"{iou(a, b):.4f}")
        0.3333
    """
    shared, union = _overlap(a, b)
    return shared / jnp.maximum(union, EPS)


def giou(a: Boxes, b: Boxes) -> Areas:
    r"""Computes the generalised intersection over union.

    .. math::
        \mathrm{GIoU} = \frac{|A \cap B|}{|A \cup B|} - \frac{|H| - |A \cup B|}{|H|}

    with the smallest box :math:`H` that contains both.

    Args:
        a: Corners, ``[..., 4]``.
        b: Corners of a shape that broadcasts with ``a``.

    Returns:
        Values in [-1, 1], ``[...]``.

    Examples:
        >>> a, b = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([2.0, 0.0, 3.0, 1.0])
        >>> print(f"{giou(a, b):.4f}")
        -0.3333

    References:
        Rezatofighi et al., `Generalized Intersection over Union
        <https://arxiv.org/abs/1902.09630>`_, CVPR 2019, algorithm 1
    """
    shared, union = _overlap(a, b)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    hull = _area(jnp.concatenate([low, high], axis=-1))
    empty = (hull - union) / jnp.maximum(hull, EPS)
    return shared / jnp.maximum(union, EPS) - empty


def pairwise(function: Callable[[Boxes, Boxes], Areas], a: Boxes, b: Boxes) -> Areas:
    """Applies a function of two boxes to all pairs.

    Args:
        function: :func:`iou` or :func:`giou`.
        a: Corners, ``[..., n, 4]``.
        b: Corners, ``[..., m, 4]``.

    Returns:
        ``[..., n, m]``.

    Examples:
        >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
        >>> print(jnp.round(6 * pairwise(iou, boxes, boxes)))
        [[6. 2.]
         [2. 6.]]
    """
    return function(a[..., :, None, :], b[..., None, :, :])


def _overlap(a: Boxes, b: Boxes) -> tuple[Areas, Areas]:
    """Returns the areas of intersection and union."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    shared = _area(jnp.concatenate([low, high], axis=-1))
    return shared, _area(a) + _area(b) - shared


def _area(corners: Boxes) -> Areas:
    """Returns the area; 0 if a side is negative."""
    sides = jnp.maximum(corners[..., 2:] - corners[..., :2], 0)
    return sides[..., 0] * sides[..., 1]
