"""COSMOS: a weighted sum and the cosine between losses and preferences."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdopt._linalg import dot
from kdopt._loss_weights import ValuesState
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, one_per_loss


def cosmos_weights(
    values: Values,
    *,
    preferences: float | Sequence[float] | jax.Array | None = None,
    penalty: float | jax.Array = 1.0,
    present: PresentLike = None,
) -> Weights:
    r"""Returns the weights of a weighted sum of losses with a cosine penalty.

    .. math::
        f(L) = r^\top L - \lambda \frac{r^\top L}{\lVert r \rVert \lVert L \rVert},
        \qquad
        w = \nabla f = r - \frac{\lambda}{\lVert L \rVert} \big(\hat r - (\hat r^\top
            \hat L) \, \hat L\big)

    with :math:`\hat r = r / \lVert r \rVert` and :math:`\hat L = L / \lVert L \rVert`.

    Args:
        values: Loss values :math:`L`, ``[k]``.
        preferences: :math:`r`, a number or ``[k]``; 1 / K each by default.
        penalty: :math:`\lambda \ge 0`; pulls the losses towards the ray along
            :math:`r`.
        present: Which losses are present, ``[k]``; the norms ignore the others.

    Returns:
        Weights, ``[k]``, of any sign; :math:`r` where all values are 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.cosmos_weights(jnp.array([3.0, 4.0]))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.4774 0.5170

    References:
        Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
        Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, ICDM 2021, Eq. 5
    """
    r = one_per_loss(preferences, len(values), values.dtype, name="preferences")
    mask = present_mask(present, len(values))
    r, values = clear_values(r, mask), clear_values(values, mask)
    norm = jnp.linalg.norm(values)
    zero = norm == 0
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, norm))
    unit, ray = values * inverse, r / jnp.linalg.norm(r)
    slope = (ray - dot(ray, unit) * unit) * inverse
    return r - jnp.asarray(penalty, values.dtype) * slope


class CosmosState(ValuesState):
    """State of :func:`kdopt.cosmos`."""

    weights_fn = staticmethod(cosmos_weights)


def cosmos(
    *,
    num_losses: int = 2,
    penalty: float | jax.Array = 1.0,
    preferences: float | Sequence[float] | jax.Array | None = None,
) -> Scalarizer:
    r"""Scalarises by a weighted sum that keeps the losses near a ray (COSMOS).

    See :func:`kdopt.scalarizers.cosmos_weights` for the equation.

    Args:
        num_losses: K.
        penalty: :math:`\lambda`; the paper tunes it per data set, between 1 and 10.
        preferences: :math:`r`, a number or ``[k]``; 1 / K each by default.

    Returns:
        A scalarizer; ``update`` needs ``values``. Weights are negative where a loss is
        small and the penalty large: that loss then rises on purpose.

    Raises:
        ValueError: If ``preferences`` has neither one entry nor K.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.cosmos().init(jnp.zeros(2))
        >>> weights = kdopt.loss_weights(state, jnp.array([3.0, 4.0]))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.4774 0.5170

    References:
        Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
        Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, ICDM 2021, Eq. 5

    Notes:
        The paper draws new preferences at every step and feeds them to the network;
        here they are fixed.
    """
    k = check_num_losses(num_losses)

    def start(dtype: jnp.dtype) -> tuple[Weights, dict, dict]:
        r = one_per_loss(preferences, k, dtype, name="preferences")
        return r, {"preferences": r, "penalty": penalty}, {}

    return from_values(CosmosState, start, num_losses=k)
