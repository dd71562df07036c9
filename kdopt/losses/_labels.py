"""Labels: class indices, or distributions over classes where a loss accepts them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from kdopt.losses._sharding import einsum, take_rows


def are_soft(labels: jax.Array, num_classes: int, axes: int = 1) -> bool:
    """Tells distributions from class indices.

    Args:
        labels: Integer indices ``[b]``, or floating-point distributions ``[b, c]``; for
            tokens ``[b, t]`` or ``[b, t, c]``.
        num_classes: Number of classes.
        axes: Number of axes of the examples: 1, or 2 for tokens.

    Returns:
        True for distributions.

    Raises:
        ValueError: If they are neither.
    """
    floating = jnp.issubdtype(labels.dtype, jnp.floating)
    hard_rank, soft_rank = labels.ndim == axes, labels.ndim == axes + 1
    if hard_rank and not floating:
        return False
    if soft_rank and labels.shape[-1] == num_classes and floating:
        return True
    if floating and hard_rank:
        advice = "cast indices to integers first"
    elif floating and soft_rank:
        advice = "give every class of the loss its share"
    elif soft_rank and labels.shape[-1] == 1:
        advice = "squeeze it first: labels[..., 0]"
    elif soft_rank and labels.shape[-1] == num_classes:
        advice = "cast one-hot rows to floating numbers, or take labels.argmax(-1)"
    else:
        advice = "give the labels all axes of the logits but the last"
    rows = "b" if axes == 1 else "..."
    raise ValueError(
        f"labels must be integer class indices [{rows}] or floating distributions "
        f"[{rows}, {num_classes}], got {labels.dtype} {list(labels.shape)}; {advice}."
    )


def label_average(labels: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns row ``y`` of ``rows`` ``[c, d]`` for each label, averaged if soft."""
    if are_soft(labels, len(rows)):
        return einsum("bc,cd->bd", labels.astype(rows.dtype), rows)
    return take_rows(rows, labels)


def target_mask(labels: Int[Array, "*b"], num_classes: int) -> Bool[Array, "*b c"]:
    """Marks the one target class of each example."""
    classes = jnp.arange(num_classes, dtype=labels.dtype)
    return labels[..., None] == jnp.expand_dims(classes, tuple(range(labels.ndim)))
