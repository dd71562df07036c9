"""Labels: class indices, or distributions over the classes where a loss takes them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


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
    raise ValueError(
        f"labels must be integer class indices [b] or floating distributions "
        f"[b, {num_classes}], got {labels.dtype} of shape {labels.shape}; squeeze or "
        "cast them first."
    )


def label_average(labels: jax.Array, rows: jax.Array) -> jax.Array:
    """Row ``y`` of ``rows`` ``[c, d]`` for each label, averaged if it is soft."""
    if are_soft(labels, len(rows)):
        return jnp.matmul(labels.astype(rows.dtype), rows, precision="highest")
    return rows[labels]


def target_mask(labels: jax.Array, num_classes: int) -> Bool[Array, "b c"]:
    """Marks the one target class of each example.

    Raises:
        ValueError: If the labels are distributions, in which every class may be one.
    """
    if are_soft(labels, num_classes):
        raise ValueError(
            "this loss sets one class against the others: labels must be class indices "
            f"[b], got distributions {labels.shape}. For mixup or cutmix pass every "
            "example once for each of its labels, with their shares as sample_weights; "
            "for smoothed labels pass the indices from before."
        )
    return jax.nn.one_hot(labels, num_classes, dtype=bool)
