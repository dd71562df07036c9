"""SoftAdapt: a softmax of the rates at which the losses change."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import check_choice
from kdopt._transform import check_num_losses
from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._windows import compare_windows

SoftAdaptVariant = Literal["plain", "normalized", "loss_weighted"]


def softadapt_weights(
    values: Values,
    previous: Values,
    *,
    beta: float | jax.Array = 0.1,
    variant: SoftAdaptVariant = "plain",
) -> Weights:
    r"""Computes weights from the change of the losses.

    .. math::
        s_i = L_i(t) - L_i(t-1), \qquad
        w_i = \frac{a_i \, e^{\beta s_i}}{\sum_j a_j \, e^{\beta s_j}}

    with :math:`a_i = 1`, or :math:`a_i = L_i(t)` (``"loss_weighted"``);
    ``"normalized"`` divides the :math:`s_i` by :math:`\sum_j |s_j|`.

    Args:
        values: Losses now, ``[k]``.
        previous: Losses before, ``[k]``.
        beta: :math:`\beta`; positive favours the loss that falls least.
        variant: One of these three.

    Returns:
        Non-negative weights of sum one, ``[k]``.

    Raises:
        ValueError: If ``variant`` is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> values, previous = jnp.array([2.0, 1.0]), jnp.array([2.0, 6.0])
        >>> weights = scalarizers.softadapt_weights(values, previous)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.6225 0.3775

    References:
        Heydari, Thompson and Mehmood, `SoftAdapt: Techniques for Adaptive Loss
        Weighting of Neural Networks with Multi-Part Loss Functions
        <https://arxiv.org/abs/1912.12355>`_, 2019, section 3
    """
    check_choice("variant", variant, get_args(SoftAdaptVariant))
    change = values - previous
    if variant == "normalized":
        total = jnp.sum(jnp.abs(change))
        change = change / jnp.where(total > 0, total, 1)
    scaled = jnp.asarray(beta, values.dtype) * change
    if variant != "loss_weighted":
        return jax.nn.softmax(scaled)
    raw = jnp.maximum(values, 0) * jnp.exp(scaled - jnp.max(scaled))
    total = jnp.sum(raw)
    equal = jnp.full_like(raw, 1 / len(raw))
    return jnp.where(total > 0, raw / jnp.where(total > 0, total, 1), equal)


def softadapt(
    *,
    num_losses: int = 2,
    window: int = 1,
    beta: float | jax.Array = 0.1,
    variant: SoftAdaptVariant = "plain",
) -> Scalarizer:
    r"""Balances by a softmax of the recent change of each loss (SoftAdapt).

    See :func:`kdopt.scalarizers.softadapt_weights` for the equation. The weights are
    equal until two windows are complete.

    Args:
        num_losses: K.
        window: Number of steps whose mean loss counts as one value.
        beta: :math:`\beta`; the authors use 0.1.
        variant: ``"plain"``; ``"normalized"``, which does not depend on the common
            scale of the losses; or ``"loss_weighted"``, which favours large losses too.

    Returns:
        A scalarizer; ``update`` needs ``values``. Weights sum to one.

    Raises:
        ValueError: If ``variant`` is unknown, or ``window`` or ``num_losses`` is not a
            positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.softadapt()
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for values in [(2.0, 6.0), (2.0, 1.0)]:
        ...     _, state = tx.update(params, state, params, values=values)
        >>> weights = kdopt.loss_weights(state)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.6225 0.3775

    References:
        Heydari, Thompson and Mehmood, `SoftAdapt
        <https://arxiv.org/abs/1912.12355>`_, 2019, Algorithm 1

    Notes:
        The paper estimates the rate by a finite difference of up to five values; means
        over windows serve the same purpose and need two.
    """
    check_choice("variant", variant, get_args(SoftAdaptVariant))

    def weights_fn(values: Values, previous: Values) -> Weights:
        return softadapt_weights(values, previous, beta=beta, variant=variant)

    return compare_windows(
        weights_fn,
        initial_weight=1 / check_num_losses(num_losses),
        num_losses=num_losses,
        window=window,
    )
