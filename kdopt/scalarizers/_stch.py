"""STCH: a smooth maximum of the losses."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdopt._loss_weights import ValuesState
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, one_per_loss


def stch_weights(
    values: Values,
    *,
    preferences: float | Sequence[float] | jax.Array | None = None,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    mu: float | jax.Array = 1.0,
    present: PresentLike = None,
) -> Weights:
    r"""Returns the weights of the smooth Tchebycheff scalarisation.

    .. math::
        f(L) = \mu \log \sum_i \exp\frac{r_i (L_i - b_i)}{\mu}, \qquad
        w_i = \frac{\partial f}{\partial L_i}
            = r_i \, \mathrm{softmax}\Big(\frac{r (L - b)}{\mu}\Big)_i

    Args:
        values: Loss values :math:`L`, ``[k]``.
        preferences: :math:`r`, a number or ``[k]``; 1 / K each by default.
        min_losses: The ideal point :math:`b`, a number or ``[k]``.
        mu: Smoothing :math:`\mu > 0`: towards 0 the worst loss has all the weight,
            towards infinity the weights are :math:`r / K`.
        present: Which losses are present, ``[k]``; the sum ignores the others.

    Returns:
        Non-negative weights, ``[k]``; they sum to at most the largest preference.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.stch_weights(jnp.array([1.0, 3.0]), mu=0.5)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.0596 0.4404

    References:
        Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
        <https://arxiv.org/abs/2402.19078>`_, ICML 2024, Eq. 8
    """
    r = one_per_loss(preferences, len(values), values.dtype, name="preferences")
    mask = present_mask(present, len(values))
    r = clear_values(r, mask)
    gaps = clear_values(values - jnp.asarray(min_losses, values.dtype), mask)
    return r * jax.nn.softmax(r * gaps / jnp.asarray(mu, values.dtype), where=mask)


class StchState(ValuesState):
    """State of :func:`kdopt.stch`."""

    weights_fn = staticmethod(stch_weights)


def stch(
    *,
    num_losses: int = 2,
    mu: float | jax.Array = 1.0,
    preferences: float | Sequence[float] | jax.Array | None = None,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
) -> Scalarizer:
    r"""Scalarises by a smooth maximum of the losses (smooth Tchebycheff, STCH).

    Every Pareto-optimal point is the optimum for some preferences, even on non-convex
    fronts, which no fixed weighted sum achieves. See
    :func:`kdopt.scalarizers.stch_weights` for the equation.

    Args:
        num_losses: K.
        mu: Smoothing :math:`\mu > 0`, on the scale of preference times loss.
        preferences: :math:`r`, a number or ``[k]``; 1 / K each by default.
        min_losses: The ideal point :math:`b`, a number or ``[k]``.

    Returns:
        A scalarizer; ``update`` needs ``values``. With the default preferences the
        weights sum to 1 / K.

    Raises:
        ValueError: If a hyper-parameter has neither one entry nor K.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.stch(mu=0.5).init(jnp.zeros(2))
        >>> weights = kdopt.loss_weights(state, jnp.array([1.0, 3.0]))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.0596 0.4404

    References:
        Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
        <https://arxiv.org/abs/2402.19078>`_, ICML 2024, Algorithm 1

    Notes:
        LibMTL (4336804) applies it to log-losses, divided by their means over the first
        epochs; for that, pass such losses.
    """
    k = check_num_losses(num_losses)

    def start(dtype: jnp.dtype) -> tuple[Weights, dict, dict]:
        r = one_per_loss(preferences, k, dtype, name="preferences")
        b = one_per_loss(min_losses, k, dtype, name="min_losses")
        return r / k, {"preferences": r, "min_losses": b, "mu": mu}, {}

    return from_values(StchState, start, num_losses=k)
