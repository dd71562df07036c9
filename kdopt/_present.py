"""Losses that are absent from a step, because the batch has no example of them."""

from typing import Any

import jax
import jax.numpy as jnp

from kdopt._typing import Mask, PerLossGrads, PresentLike, Values


def present_mask(present: PresentLike, num_losses: int) -> Mask | None:
    """Converts what the user passed as ``present`` to a mask.

    Args:
        present: K bools or numbers, an array or a sequence; nonzero means present. None
            if all losses are.
        num_losses: K.

    Raises:
        ValueError: If there are not K of them.
    """
    if present is None:
        return None
    if isinstance(present, (tuple, list)):
        present = jnp.stack([jnp.asarray(p).astype(bool) for p in present])
    mask = jnp.asarray(present).astype(bool)
    if mask.shape != (num_losses,):
        raise ValueError(
            f"present must hold one bool per loss, {num_losses} of them, got an array "
            f"of shape {mask.shape}."
        )
    return mask


def clear_grads(grads: PerLossGrads, mask: Mask | None) -> PerLossGrads:
    """Zeroes the gradients of absent losses, which may hold anything."""
    if mask is None:
        return grads
    return tuple(
        jax.tree.map(lambda g, i=i: jnp.where(mask[i], g, jnp.zeros_like(g)), tree)
        for i, tree in enumerate(grads)
    )


def clear_values(values: Values, mask: Mask | None) -> Any:
    """Zeroes the values, or anything else ``[k]``, of absent losses."""
    return values if mask is None else jnp.where(mask, values, jnp.zeros_like(values))
