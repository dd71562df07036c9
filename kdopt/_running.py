"""Running means of per-loss numbers, without the bias of a start at zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class RunningMean(NamedTuple):
    """A running mean, entry by entry.

    Attributes:
        total: Weighted sum of the values so far.
        share: Sum of the weights, in [0, 1]; 0 where there are none yet.
    """

    total: jax.Array
    share: jax.Array

    @property
    def value(self) -> jax.Array:
        """The mean; 0 where there are no values yet."""
        seen = self.share > 0
        return jnp.where(seen, self.total / jnp.where(seen, self.share, 1), 0)


def start_mean(*shape: int) -> RunningMean:
    """Returns an empty mean."""
    return RunningMean(jnp.zeros(shape), jnp.zeros(shape))


def move_mean(
    mean: RunningMean, new: jax.Array, decay: float | jax.Array, counts: jax.Array
) -> RunningMean:
    r"""Moves a mean towards a new value.

    .. math::
        m_t = \frac{\sum_{s \le t} \beta^{t - s} x_s}{\sum_{s \le t} \beta^{t - s}}

    Args:
        mean: The mean so far.
        new: :math:`x_t`.
        decay: :math:`\beta` in [0, 1).
        counts: Which entries of ``new`` count; the means of the others stay.
    """
    beta = jnp.asarray(decay, new.dtype)
    total = mean.total.astype(new.dtype)
    share = mean.share.astype(new.dtype)
    return RunningMean(
        jnp.where(counts, beta * total + (1 - beta) * new, total),
        jnp.where(counts, beta * share + (1 - beta), share),
    )
