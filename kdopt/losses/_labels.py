"""Labels: class indices, or distributions over the classes where a loss takes them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from kdopt.losses._sharding import einsum, take_rows


def are_soft(labels: jax.Array, num_classes: int) -> bool:
    """Tells distributions from class indices.

    Args:
        labels: Integer indices ``[b]``, or floating distributions ``[b, c]``.
        num_classes: Number of classes.

    Returns:
        True for distributions.

    Raises:
        ValueError: If they are neither.
    """
    floating = jnp.issubdtype(labels.dtype, jnp.floating)
    if labels.ndim == 1 and not floating:
        return False
    if labels.ndim == 2 and labels.shape[1] == num_classes and floating:
        return True
    if floating and labels.ndim == 1:
        advice = "cast indices to integers first"
    elif floating and labels.ndim == 2:
        advice = "give every class that the loss knows its share"
    elif labels.ndim == 2 and labels.shape[1] == 1:
        advice = "squeeze it first: labels[:, 0]"
    elif labels.ndim == 2 and labels.shape[1] == num_classes:
        advice = "cast one-hot rows to floating numbers, or take labels.argmax(1)"
    else:
        advice = "fold or squeeze the labels as the logits are"
    shape = f"[{', '.join(map(str, labels.shape))}]"
    raise ValueError(
        f"labels must be integer class indices [b] or floating distributions "
        f"[b, {num_classes}], got {labels.dtype} {shape}; {advice}."
    )


def label_average(labels: jax.Array, rows: jax.Array) -> jax.Array:
    """Row ``y`` of ``rows`` ``[c, d]`` for each label, averaged if it is soft."""
    if are_soft(labels, len(rows)):
        return einsum("bc,cd->bd", labels.astype(rows.dtype), rows)
    return take_rows(rows, labels)


def target_mask(labels: Int[Array, " b"], num_classes: int) -> Bool[Array, "b c"]:
    """Marks the one target class of each example."""
    return labels[:, None] == jnp.arange(num_classes, dtype=labels.dtype)[None]
