"""The one reduction over the batch."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._typing import Scalar


def batch_mean(
    per_sample: Float[Array, " b"], sample_weights: Float[Array, " b"] | None
) -> Scalar:
    """Averages over the batch, weighted if asked.

    Args:
        per_sample: One loss per example, ``[b]``.
        sample_weights: Non-negative weights, ``[b]``; 0 masks an example out, as the
            padding of the last batch of an epoch. None means all ones.

    Returns:
        The weighted mean; 0 if all weights are 0.
    """
    if sample_weights is None:
        return jnp.mean(per_sample)
    weights = sample_weights.astype(per_sample.dtype)
    # A masked example may hold anything, NaN included: select before multiplying.
    kept = jnp.where(weights > 0, per_sample, 0)
    total = jnp.sum(weights)
    return jnp.sum(weights * kept) / jnp.where(total > 0, total, 1)
