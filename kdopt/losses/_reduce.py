"""Weights of the examples: the reduction over the batch, and masking before it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._typing import Scalar
from kdopt.losses._sharding import gathered


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
    return divide_or_zero(jnp.sum(weights * kept), total)


def row_weights(
    x: Float[Array, "b ..."], sample_weights: Float[Array, " b"] | None
) -> Float[Array, " b"]:
    """Returns how often each row of ``x`` counts: the weights, or ones, ``[b]``."""
    if sample_weights is None:
        return jnp.ones(len(x), x.dtype)
    return sample_weights.astype(x.dtype)


def clear_masked(x: jax.Array, sample_weights: Float[Array, " b"] | None) -> jax.Array:
    """Zeroes the rows of weight 0 of an array ``[b, ...]``: they may hold anything.

    Before any arithmetic: a selection afterwards would spare the value and not the
    gradient, in which 0 times what is not finite is NaN.
    """
    if sample_weights is None:
        return x
    kept = sample_weights.reshape(-1, *(1 for _ in x.shape[1:])) > 0
    return jnp.where(kept, x, 0)


def pair_sum(table: Float[Array, "b b"], counts: Float[Array, " b"]) -> Scalar:
    """Sums a table over all pairs of rows, each as often as both of them count."""
    return jnp.sum(counts * jnp.sum(table * gathered(counts)[None], axis=1))


def divide_or_zero(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides, with 0 (and no gradient) where the denominator is 0."""
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1), 0)
