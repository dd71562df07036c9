"""GLS: the geometric mean of the losses."""

import jax
import jax.numpy as jnp

from kdopt._log_losses import Bounds, gaps_above, last_logs
from kdopt._loss_weights import ValuesState
from kdopt._transform import check_num_losses
from kdopt._typing import Mask, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, one_per_loss


def _remembering_weights(
    values: Values,
    *,
    min_losses: Values,
    eps: jax.Array,
    log_gaps: Values,
    seen: jax.Array,
    present: Mask | None = None,
) -> Weights:
    found = gaps_above(values, min_losses, eps, present)
    logs = last_logs(found, log_gaps, seen)
    fresh = jnp.exp(jnp.mean(logs) - logs) / len(logs)
    return jnp.where(jnp.all(jnp.isfinite(values)), fresh, jnp.nan)


class GeometricMeanState(ValuesState):
    """State of :func:`kdopt.geometric_mean`.

    Its memory is ``log_gaps``, logarithms of the gaps between losses and bounds when
    last positive, ``[k]``, and ``seen``, which of them ever were.
    """

    weights_fn = staticmethod(_remembering_weights)


def geometric_mean_weights(
    values: Values,
    *,
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Weights:
    r"""Returns the weights of the geometric mean of the losses.

    .. math::
        f(L) = \Big(\prod_i D_i\Big)^{1/K}, \qquad D_i = \max(L_i - b_i, \varepsilon),
        \qquad w_i = \frac{\partial f}{\partial L_i} = \frac{f(L)}{K D_i}

    Args:
        values: Loss values :math:`L`, ``[k]``.
        min_losses: Lower bounds :math:`b`, a number or ``[k]``.
        eps: Floor of :math:`D_i`.

    Returns:
        Positive weights, ``[k]``, of product :math:`K^{-K}`. Losses must be above their
        bounds: one that is exactly 0 counts as absent, and has no weight in the mean of
        the others; any other makes the weights NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> print(scalarizers.geometric_mean_weights(jnp.array([1.0, 4.0])))
        [1.   0.25]

    References:
        Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and Geometric
        Loss Strategy for Multi-Task Learning <https://arxiv.org/abs/1904.08492>`_,
        CVPR Workshops 2019, Eq. 2
    """
    found = gaps_above(values, min_losses, eps)
    counts = found.usable | ~jnp.any(found.usable)
    number = jnp.sum(counts).astype(values.dtype)
    logs = jnp.log(found.gaps)
    mean = jnp.sum(jnp.where(counts, logs, 0)) / number
    return found.settle(jnp.exp(mean - logs) / number)


def geometric_mean(
    *,
    num_losses: int = 2,
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Scalarizer:
    r"""Scalarises by the geometric mean of the losses (GLS).

    Its gradient is that of the sum of log-losses, times the mean itself: scaling one
    loss changes the length of the update but not its direction. See
    :func:`kdopt.scalarizers.geometric_mean_weights` for the equation.

    Args:
        num_losses: K.
        min_losses: Lower bounds, a number or ``[k]``.
        eps: See :func:`kdopt.scalarizers.geometric_mean_weights`.

    Returns:
        A scalarizer; ``update`` needs ``values``, which must be above their bounds: for
        one that is not, its last value that was is used. Equal losses get the weight 1
        / K each; the sum is at least 1.

    Raises:
        ValueError: If ``min_losses`` has neither one entry nor K.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.geometric_mean().init(jnp.zeros(2))
        >>> print(kdopt.loss_weights(state, jnp.array([1.0, 4.0])))
        [1.   0.25]

    References:
        Chennupati et al., `MultiNet++ <https://arxiv.org/abs/1904.08492>`_, CVPR
        Workshops 2019, Eq. 2
    """
    k = check_num_losses(num_losses)

    def start(dtype: jnp.dtype) -> tuple[Weights, dict, dict]:
        b = one_per_loss(min_losses, k, dtype, name="min_losses")
        memory = {"log_gaps": jnp.zeros(k, dtype), "seen": jnp.zeros(k, bool)}
        return jnp.full(k, 1 / k, dtype), {"min_losses": b, "eps": eps}, memory

    def remember(
        state: ValuesState, values: Values, mask: Mask | None
    ) -> tuple[dict, jax.Array]:
        found = gaps_above(values, mask=mask, **state.settings)
        usable = found.usable & found.defined
        logs = jnp.where(usable, jnp.log(found.gaps), state.memory["log_gaps"])
        memory = {"log_gaps": logs, "seen": state.memory["seen"] | usable}
        return memory, found.defined

    return from_values(GeometricMeanState, start, num_losses=k, remember=remember)
