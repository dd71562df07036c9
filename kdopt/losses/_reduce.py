"""Weights of the examples: the reduction over the batch, and masking before it."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt._typing import Scalar
from kdopt.losses._shapes import check_denominator
from kdopt.losses._sharding import gathered

Denominator: TypeAlias = ArrayLike | Literal["mean", "count"]
"""What a sum over examples is divided by: the sum of their weights, the number of
examples with nonzero weight, or any number."""


def batch_mean(
    per_sample: Float[Array, "*b"],
    sample_weights: Float[Array, "*b"] | None,
    denominator: Denominator = "mean",
) -> Scalar:
    """Sums over the batch, weighted if wanted, and divides.

    Args:
        per_sample: One loss per example, of any shape.
        sample_weights: Non-negative weights of the same shape; 0 masks an example, such
            as padding in the last batch of an epoch. None means all ones.
        denominator: ``"mean"`` divides by the sum of the weights, ``"count"`` by the
            number of examples whose weight is not 0, a number divides by itself.

    Returns:
        The quotient; 0 if all weights are 0, or the denominator is.

    Raises:
        ValueError: If the denominator is none of these three.
    """
    dtype = per_sample.dtype
    if sample_weights is None:
        if isinstance(denominator, str):
            check_denominator(denominator)
            return jnp.mean(per_sample)
        total = total_of(jnp.ones((), dtype), denominator)
        return divide_or_zero(jnp.sum(per_sample), total)
    weights = sample_weights.astype(dtype)
    # A masked example may hold anything, NaN included: select before multiplying.
    kept = jnp.where(weights > 0, per_sample, 0)
    return divide_or_zero(jnp.sum(weights * kept), total_of(weights, denominator))


def total_of(weights: Float[Array, "*b"], denominator: Denominator) -> Scalar:
    """Returns the number that a sum over examples is divided by.

    Raises:
        ValueError: If the denominator is none of these three.
    """
    check_denominator(denominator)
    if isinstance(denominator, str):
        counted = weights if denominator == "mean" else weights > 0
        return jnp.sum(counted, dtype=weights.dtype)
    number = jnp.asarray(denominator).astype(weights.dtype)
    return jax.lax.stop_gradient(number)


def row_weights(
    x: Float[Array, "b ..."], sample_weights: Float[Array, " b"] | None
) -> Float[Array, " b"]:
    """Returns how often each row of ``x`` counts: the weights, or ones, ``[b]``."""
    if sample_weights is None:
        return jnp.ones(len(x), x.dtype)
    return sample_weights.astype(x.dtype)


def clear_masked(x: jax.Array, sample_weights: Float[Array, "*b"] | None) -> jax.Array:
    """Zeroes the rows of weight 0 of an array ``[b, ...]``: they may hold anything.

    The axes of the weights are the first ones of the array.

    This must come before any arithmetic: a selection afterwards would protect the value
    but not the gradient, where 0 times a non-finite number is NaN.
    """
    if sample_weights is None:
        return x
    kept = jnp.expand_dims(
        sample_weights > 0, tuple(range(sample_weights.ndim, x.ndim))
    )
    return jnp.where(kept, x, 0)


def pair_sum(table: Float[Array, "b b"], counts: Float[Array, " b"]) -> Scalar:
    """Sums a table over all pairs of rows, each as often as both of them count."""
    return jnp.sum(counts * jnp.sum(table * gathered(counts)[None], axis=1))


def divide_or_zero(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides, with 0 (and no gradient) where the denominator is 0."""
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1), 0)
