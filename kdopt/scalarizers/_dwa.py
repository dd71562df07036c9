"""DWA: losses that fall slowly get more weight in the next epoch."""

import jax
import jax.numpy as jnp

from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._windows import compare_windows


def dwa_weights(
    values: Values, previous: Values, *, temperature: float | jax.Array = 2.0
) -> Weights:
    r"""Computes weights from the ratio of the losses of two successive epochs.

    .. math::
        r_i = \frac{L_i(t-1)}{L_i(t-2)}, \qquad
        w_i = K \frac{\exp(r_i / T)}{\sum_j \exp(r_j / T)}

    Args:
        values: Mean losses of the last epoch, ``[k]``.
        previous: Mean losses of the epoch before, ``[k]``.
        temperature: :math:`T > 0`; the larger, the more equal the weights.

    Returns:
        Positive weights of sum K, ``[k]``; a loss that was 0 counts as unchanged.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.dwa_weights(jnp.array([1.0, 0.5]), jnp.ones(2))
        >>> print("{:.4f} {:.4f}".format(*weights))
        1.1244 0.8756

    References:
        Liu, Johns and Davison, `End-to-End Multi-Task Learning with Attention
        <https://arxiv.org/abs/1803.10704>`_, CVPR 2019, Eq. 7
    """
    was_zero = previous == 0
    ratio = jnp.where(was_zero, 1, values / jnp.where(was_zero, 1, previous))
    scaled = ratio / jnp.asarray(temperature, values.dtype)
    return len(values) * jax.nn.softmax(scaled)


def dwa(
    *,
    num_losses: int = 2,
    window: int,
    temperature: float | jax.Array = 2.0,
) -> Scalarizer:
    r"""Balances by dynamic weight average (DWA).

    A loss that fell less than the others over the last epoch gets more weight in the
    next one; see :func:`kdopt.scalarizers.dwa_weights` for the equation. During the
    first two epochs all weights are 1.

    Args:
        num_losses: K.
        window: Number of steps whose mean loss counts as one value: the steps of an
            epoch, in the paper. 1 compares single batches, which is mostly noise.
        temperature: :math:`T`; the paper uses 2.

    Returns:
        A scalarizer; ``update`` needs ``values``. Weights sum to K.

    Raises:
        ValueError: If ``window`` or ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dwa(window=2)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for values in [(1.0, 1.0), (3.0, 3.0), (2.0, 1.0), (2.0, 1.0)]:
        ...     _, state = tx.update(params, state, params, values=values)
        >>> weights = kdopt.loss_weights(state)
        >>> print("{:.4f} {:.4f}".format(*weights))
        1.1244 0.8756

    References:
        Liu, Johns and Davison, `End-to-End Multi-Task Learning with Attention
        <https://arxiv.org/abs/1803.10704>`_, CVPR 2019, section 3.3
    """

    def weights_fn(values: Values, previous: Values) -> Weights:
        return dwa_weights(values, previous, temperature=temperature)

    return compare_windows(
        weights_fn, initial_weight=1.0, num_losses=num_losses, window=window
    )
