"""Gaps between losses and their lower bounds, for methods that take logarithms."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdopt._typing import Mask, Values, Weights

Bounds = float | Sequence[float] | jax.Array
"""Lower bounds of the losses: one number or one per loss."""


class Gaps(NamedTuple):
    """Gaps between the losses and their lower bounds.

    Attributes:
        gaps: Losses minus their bounds, ``[k]``; 1 where that is not positive.
        usable: Where a gap is positive and so has a logarithm, ``[k]``.
        absent: Which of the others are exactly 0 or marked as absent: losses without an
            example in the batch, ``[k]``.
    """

    gaps: Values
    usable: jax.Array
    absent: jax.Array

    @property
    def defined(self) -> jax.Array:
        """Whether every loss that is present has a logarithm."""
        return jnp.all(self.usable | self.absent)

    def settle(self, weights: Weights) -> Weights:
        """Zeroes the weights of absent losses; NaN if a logarithm is undefined."""
        none = ~jnp.any(self.usable)
        weights = jnp.where(self.usable | none, weights, 0)
        return jnp.where(self.defined, weights, jnp.nan)


def gaps_above(
    values: Values,
    min_losses: Bounds,
    eps: float | jax.Array,
    mask: Mask | None = None,
) -> Gaps:
    r"""Subtracts the bounds, and marks the gaps without a logarithm.

    .. math:: D_i = \max(L_i - b_i, \varepsilon)

    Args:
        values: Losses :math:`L_i`, ``[k]``.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``.
        eps: Floor :math:`\varepsilon` of positive gaps.
        mask: Which losses are present, ``[k]``; by default all that are not exactly 0.
    """
    mask = jnp.ones(values.shape, bool) if mask is None else mask
    above = values - jnp.asarray(min_losses, values.dtype)
    usable = mask & jnp.isfinite(values) & (above > 0)
    floored = jnp.maximum(above, jnp.asarray(eps, values.dtype))
    return Gaps(
        gaps=jnp.where(usable, floored, 1),
        usable=usable,
        absent=~usable & (~mask | (values == 0)),
    )


def last_logs(found: Gaps, log_gaps: Values, seen: jax.Array) -> Values:
    """Returns the logarithms of the gaps; the last known one where undefined.

    A loss that never had one takes the mean of the others, and so counts as they do.

    Args:
        found: The gaps of this step.
        log_gaps: Logarithms of the last gaps that had one, ``[k]``.
        seen: Which losses ever had one, ``[k]``.
    """
    known = found.usable | seen
    logs = jnp.where(found.usable, jnp.log(found.gaps), log_gaps)
    count = jnp.maximum(jnp.sum(known), 1).astype(logs.dtype)
    return jnp.where(known, logs, jnp.sum(jnp.where(known, logs, 0)) / count)
