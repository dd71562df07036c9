"""PBI: the distance along a ray and the distance from it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdopt._linalg import dot
from kdopt._loss_weights import ValuesState
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, one_per_loss


def pbi_weights(
    values: Values,
    *,
    preferences: float | Sequence[float] | jax.Array | None = None,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    theta: float | jax.Array = 5.0,
    present: PresentLike = None,
) -> Weights:
    r"""Returns the weights of the penalty-based boundary intersection.

    .. math::
        d_1 = \hat r^\top (L - b), \qquad e = L - b - d_1 \hat r, \qquad
        f(L) = d_1 + \theta \lVert e \rVert, \qquad
        w = \nabla f = \hat r + \theta \frac{e}{\lVert e \rVert}

    with :math:`\hat r = r / \lVert r \rVert`.

    Args:
        values: Loss values :math:`L`, ``[k]``.
        preferences: :math:`r`, a number or ``[k]``; equal by default.
        min_losses: The ideal point :math:`b`, a number or ``[k]``.
        theta: :math:`\theta \ge 0`, the penalty for leaving the ray.
        present: Which losses are present, ``[k]``; the norms ignore the others.

    Returns:
        Weights, ``[k]``, of any sign; :math:`\hat r` on the ray itself, where the
        distance has no gradient.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.pbi_weights(jnp.array([1.0, 3.0]), theta=0.5)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.3536 1.0607

    References:
        Zhang and Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on
        Decomposition <https://doi.org/10.1109/TEVC.2007.892759>`_, 2007, section II.C
    """
    r = one_per_loss(preferences, len(values), values.dtype, name="preferences")
    mask = present_mask(present, len(values))
    r = clear_values(r, mask)
    ray = r / jnp.linalg.norm(r)
    gaps = clear_values(values - jnp.asarray(min_losses, values.dtype), mask)
    off = gaps - dot(ray, gaps) * ray
    norm = jnp.linalg.norm(off)
    # Within the rounding error of the subtraction the losses count as on the ray.
    on_ray = norm <= 4 * jnp.finfo(values.dtype).eps * jnp.linalg.norm(gaps)
    away = jnp.where(on_ray, 0, off / jnp.where(on_ray, 1, norm))
    return ray + jnp.asarray(theta, values.dtype) * away


class PbiState(ValuesState):
    """State of :func:`kdopt.pbi`."""

    weights_fn = staticmethod(pbi_weights)


def pbi(
    *,
    num_losses: int = 2,
    theta: float | jax.Array = 5.0,
    preferences: float | Sequence[float] | jax.Array | None = None,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
) -> Scalarizer:
    r"""Scalarises by penalty-based boundary intersection (PBI).

    See :func:`kdopt.scalarizers.pbi_weights` for the equation.

    Args:
        num_losses: K.
        theta: :math:`\theta`; the paper uses 5.
        preferences: :math:`r`, a number or ``[k]``; equal by default.
        min_losses: The ideal point, a number or ``[k]``.

    Returns:
        A scalarizer; ``update`` needs ``values``. The weights are negative for a loss
        far enough below the ray, and jump at the ray: take small steps.

    Raises:
        ValueError: If a hyper-parameter has neither one entry nor K.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.pbi(theta=0.5).init(jnp.zeros(2))
        >>> weights = kdopt.loss_weights(state, jnp.array([1.0, 3.0]))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.3536 1.0607

    References:
        Zhang and Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on
        Decomposition <https://doi.org/10.1109/TEVC.2007.892759>`_, 2007, section II.C
    """
    k = check_num_losses(num_losses)

    def start(dtype: jnp.dtype) -> tuple[Weights, dict, dict]:
        r = one_per_loss(preferences, k, dtype, name="preferences")
        b = one_per_loss(min_losses, k, dtype, name="min_losses")
        settings = {"preferences": r, "min_losses": b, "theta": theta}
        return r / jnp.linalg.norm(r), settings, {}

    return from_values(PbiState, start, num_losses=k)
