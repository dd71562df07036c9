"""Uncertainty weighting: each loss is divided by a learned variance."""

import jax
import jax.numpy as jnp
import optax

from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._log_scales import log_scales


def uncertainty_weights(log_variances: jax.Array) -> Weights:
    r"""Returns the weights of the losses under learned variances.

    .. math:: w_i = \tfrac12 e^{-s_i}

    Args:
        log_variances: :math:`s_i = \log \sigma_i^2`, ``[k]``.

    Returns:
        Positive weights, ``[k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.uncertainty_weights(jnp.log(jnp.array([1.0, 4.0])))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.5000 0.1250
    """
    return jnp.exp(-log_variances) / 2


def uncertainty(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    num_losses: int = 2,
    initial: float | jax.Array = 0.0,
) -> Scalarizer:
    r"""Weights losses by homoscedastic uncertainty (UW).

    .. math::
        \min_{\theta, s} \; \sum_i \tfrac12 e^{-s_i} L_i + \tfrac12 s_i, \qquad
        w_i = \tfrac12 e^{-s_i}

    For constant losses it converges to :math:`s_i = \log L_i` and
    :math:`w_i = 1 / (2 L_i)`: UW tends to the gradient of the sum of log-losses.

    Args:
        learning_rate: Learning rate of Adam on :math:`s`, a number or a schedule.
        num_losses: K.
        initial: Initial :math:`s_i`.

    Returns:
        A scalarizer; ``update`` needs ``values``, which must be positive and at most
        1e18: a loss of exactly 0 counts as absent and leaves its scale as it is; a step
        with any other is skipped and counted, as is one after which :math:`e^s` would
        not lie between 1e-18 and 1e18. The weights start at :math:`\frac12 e^{-s}`
        each, so their sum is K / 2 at first.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.uncertainty(0.1)
        >>> params = jnp.zeros(2)
        >>> _, state = tx.update(params, tx.init(params), params, values=(4.0, 0.5))
        >>> weights = kdopt.loss_weights(state)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.4524 0.5526

    References:
        Kendall, Gal and Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses
        <https://arxiv.org/abs/1705.07115>`_, CVPR 2018, Eq. 7

    Notes:
        The paper learns :math:`s` with the optimiser of the network. Here it has its
        own, Adam, so that decay and clipping of the network do not affect it. Under
        Adam UW and :func:`kdopt.imtl_l` differ only by the factor 1/2. A slope is
        capped at 100, since Adam would hardly move for a long time after a larger one.
    """

    def slope_fn(scales: jax.Array, values: Values) -> jax.Array:
        return (1 - jnp.exp(-scales) * values) / 2

    return log_scales(
        uncertainty_weights,
        slope_fn,
        learning_rate=learning_rate,
        initial=initial,
        num_losses=num_losses,
    )
