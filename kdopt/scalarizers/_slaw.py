"""SLAW: losses weighted inversely to how much they vary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._transform import check_num_losses
from kdopt._typing import Mask, Scalarizer, Values, Weights
from kdopt.scalarizers._memory import from_memory


class SlawMemory(NamedTuple):
    """State that :func:`slaw` carries: mean and variance of the values, ``[k]``."""

    mean: Values
    variance: Values


def slaw_weights(variances: Values, *, eps: float | jax.Array = 1e-10) -> Weights:
    r"""Returns weights inverse to the standard deviations of the losses.

    .. math:: s_i = \sqrt{\max(v_i, \varepsilon)}, \qquad
        w_i = K \, \frac{1 / s_i}{\sum_j 1 / s_j}

    Args:
        variances: :math:`v`, ``[k]``.
        eps: :math:`\varepsilon`.

    Returns:
        Positive weights of sum K, ``[k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.slaw_weights(jnp.array([4.0, 1.0]))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.6667 1.3333

    References:
        Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for Efficient
        Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021
    """
    logs = -0.5 * jnp.log(jnp.maximum(variances, jnp.asarray(eps, variances.dtype)))
    return len(variances) * jax.nn.softmax(logs)


def slaw(
    *,
    num_losses: int = 2,
    beta: float | jax.Array = 0.99,
    eps: float | jax.Array = 1e-10,
) -> Scalarizer:
    r"""Equalises the gradient norms, estimated from the noise of the losses (SLAW).

    .. math:: v_i = \mathrm{mean}_\beta(L_i^2) - \mathrm{mean}_\beta(L_i)^2

    The longer a gradient, the more its loss varies from step to step; so weights
    inverse to the standard deviations equalise the lengths, with one backward pass.
    Both means begin at 0, so the first weights are inverse to the losses themselves.

    Args:
        num_losses: K.
        beta: :math:`\beta` in [0, 1).
        eps: See :func:`kdopt.scalarizers.slaw_weights`.

    Returns:
        A scalarizer; ``update`` needs ``values``. Weights sum to K. A loss that does
        not vary gets a large weight; one that is not ``present`` keeps its mean and
        variance.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.slaw()
        >>> params = jnp.zeros(2)
        >>> _, state = tx.update(params, tx.init(params), params, values=(2.0, 1.0))
        >>> print("{:.4f} {:.4f}".format(*kdopt.loss_weights(state)))
        0.6667 1.3333

    References:
        Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for Efficient
        Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021
    """
    k = check_num_losses(num_losses)
    check_range("beta", beta, 0.0, 1.0, open_maximum=True)
    check_range("eps", eps, 0.0, open_minimum=True)

    def step_fn(
        values: Values, memory: SlawMemory, present: Mask
    ) -> tuple[Weights, SlawMemory]:
        keep = jnp.asarray(beta, values.dtype)
        off = values - memory.mean
        # Not as a difference of squares, which would lose digits.
        variance = keep * (memory.variance + (1 - keep) * off**2)
        mean = memory.mean + (1 - keep) * off
        variance = jnp.where(present, variance, memory.variance)
        weights = slaw_weights(variance, eps=eps)
        return weights, SlawMemory(jnp.where(present, mean, memory.mean), variance)

    return from_memory(
        step_fn,
        num_losses=k,
        initial_weights=1.0,
        initial_state=SlawMemory(jnp.zeros(k), jnp.zeros(k)),
    )
