"""IMTL-L: every loss is scaled to the same size by a learned factor."""

import jax
import jax.numpy as jnp
import optax

from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._log_scales import log_scales


def imtl_l_weights(log_scales: jax.Array) -> Weights:
    r"""Returns the weights of the losses under learned scales.

    .. math:: w_i = e^{s_i}

    Args:
        log_scales: :math:`s`, ``[k]``.

    Returns:
        Positive weights, ``[k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.imtl_l_weights(jnp.zeros(2))
        >>> print("{:.4f} {:.4f}".format(*weights))
        1.0000 1.0000
    """
    return jnp.exp(log_scales)


def imtl_l(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    num_losses: int = 2,
    initial: float | jax.Array = 0.0,
) -> Scalarizer:
    r"""Scales the losses to one size (IMTL-L, impartial learning of losses).

    .. math:: \min_{\theta, s} \; \sum_i e^{s_i} L_i - s_i, \qquad w_i = e^{s_i}

    For constant losses :math:`e^{s_i} L_i` converges to 1 for each of them.

    Args:
        learning_rate: Learning rate of Adam on :math:`s`, a number or a schedule.
        num_losses: K.
        initial: Initial :math:`s_i`.

    Returns:
        A scalarizer; ``update`` needs ``values``, which must be positive and at most
        1e18: a loss of exactly 0 counts as absent and leaves its scale as it is; a step
        with any other is skipped and counted, as is one after which :math:`e^s` would
        not lie between 1e-18 and 1e18. The weights start at :math:`e^{s}` each, as in a
        plain sum.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.imtl_l(0.1)
        >>> params = jnp.zeros(2)
        >>> _, state = tx.update(params, tx.init(params), params, values=(4.0, 0.5))
        >>> weights = kdopt.loss_weights(state)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.9048 1.1052

    References:
        Liu et al., `Towards Impartial Multi-task Learning
        <https://openreview.net/forum?id=IMPnRXEWpvr>`_, ICLR 2021, loss balance
    """

    def slope_fn(scales: jax.Array, values: Values) -> jax.Array:
        return jnp.exp(scales) * values - 1

    return log_scales(
        imtl_l_weights,
        slope_fn,
        learning_rate=learning_rate,
        initial=initial,
        num_losses=num_losses,
    )
