"""GLS: the geometric mean of the losses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt._transform import check_num_losses
from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, given_values, held, one_per_loss


class GeometricMeanState(NamedTuple):
    """State of :func:`kdopt.geometric_mean`.

    Attributes:
        min_losses: Lower bounds of the losses, ``[k]``.
        eps: Floor of a loss minus its bound.
        last_weights: ``[k]``; used again where values are not finite.
        notfinite_count: Number of steps, int32, with values that were not finite.
    """

    min_losses: jax.Array
    eps: jax.Array
    last_weights: Weights
    notfinite_count: jax.Array

    def loss_weights(self, values: Any) -> Weights:
        """Weights for the next backward pass; :func:`kdopt.loss_weights` calls it."""
        fresh = geometric_mean_weights(
            given_values(values, self.last_weights),
            min_losses=self.min_losses,
            eps=self.eps,
        )
        return held(fresh, self.last_weights)


def geometric_mean_weights(
    values: Values,
    *,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Weights:
    r"""Weights of the geometric mean of the losses.

    .. math::
        f(L) = \Big(\prod_i D_i\Big)^{1/K}, \qquad D_i = \max(L_i - b_i, \varepsilon),
        \qquad w_i = \frac{\partial f}{\partial L_i} = \frac{f(L)}{K D_i}

    Args:
        values: Loss values :math:`L`, ``[k]``.
        min_losses: Lower bounds :math:`b`, a number or ``[k]``.
        eps: Floor of :math:`D_i`.

    Returns:
        Positive weights, ``[k]``, of product :math:`K^{-K}`.

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
    bounds = jnp.asarray(min_losses, values.dtype)
    gaps = jnp.maximum(values - bounds, jnp.asarray(eps, values.dtype))
    logs = jnp.log(gaps)
    return jnp.exp(jnp.mean(logs) - logs) / len(values)


def geometric_mean(
    *,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    eps: float | jax.Array = 1e-8,
    num_losses: int = 2,
) -> Scalarizer:
    r"""Scalarises by the geometric mean of the losses (GLS).

    Its gradient is that of the sum of log-losses, times the mean itself: factors of
    single losses change the length of the update and not its direction. See
    :func:`kdopt.scalarizers.geometric_mean_weights` for the equation.

    Args:
        min_losses: Lower bounds, a number or ``[k]``.
        eps: Floor of a loss minus its bound.
        num_losses: K.

    Returns:
        A scalarizer; ``update`` needs ``values``. Equal losses get the weight 1 / K
        each; the sum is at least 1.

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

    def make_state(dtype: jnp.dtype) -> GeometricMeanState:
        return GeometricMeanState(
            min_losses=one_per_loss(min_losses, k, dtype, name="min_losses"),
            eps=jnp.asarray(eps, dtype),
            last_weights=jnp.full(k, 1 / k, dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    return from_values(make_state, num_losses=k)
