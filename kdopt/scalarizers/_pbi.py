"""PBI: the distance along a ray and the distance from it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt._linalg import dot
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, given_values, held, one_per_loss


class PbiState(NamedTuple):
    """State of :func:`kdopt.pbi`.

    Attributes:
        preferences: One per loss, ``[k]``.
        min_losses: Lower bounds of the losses, ``[k]``.
        theta: Penalty of the distance from the ray.
        last_weights: ``[k]``; used again where values are not finite.
        notfinite_count: Number of steps, int32, with values that were not finite.
    """

    preferences: jax.Array
    min_losses: jax.Array
    theta: jax.Array
    last_weights: Weights
    notfinite_count: jax.Array

    def loss_weights(self, values: Any, present: PresentLike = None) -> Weights:
        """Weights for the next backward pass; :func:`kdopt.loss_weights` calls it."""
        array, mask = given_values(values, self.last_weights, present)
        fresh = pbi_weights(
            array,
            present=mask,
            preferences=self.preferences,
            min_losses=self.min_losses,
            theta=self.theta,
        )
        return held(fresh, self.last_weights)


def pbi_weights(
    values: Values,
    *,
    preferences: float | Sequence[float] | jax.Array | None = None,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    theta: float | jax.Array = 5.0,
    present: PresentLike = None,
) -> Weights:
    r"""Weights of the penalty-based boundary intersection.

    .. math::
        d_1 = \hat r^\top (L - b), \qquad e = L - b - d_1 \hat r, \qquad
        f(L) = d_1 + \theta \lVert e \rVert, \qquad
        w = \nabla f = \hat r + \theta \frac{e}{\lVert e \rVert}

    with :math:`\hat r = r / \lVert r \rVert`.

    Args:
        values: Loss values :math:`L`, ``[k]``.
        preferences: :math:`r`, a number or ``[k]``; equal by default.
        min_losses: The ideal point :math:`b`, a number or ``[k]``.
        theta: :math:`\theta \ge 0`, the price of leaving the ray.
        present: Which losses are present, ``[k]``; the norms leave the others out.

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
    # Below the rounding error of the subtraction the losses count as on the ray.
    on_ray = norm <= 4 * jnp.finfo(values.dtype).eps * jnp.linalg.norm(gaps)
    away = jnp.where(on_ray, 0, off / jnp.where(on_ray, 1, norm))
    return ray + jnp.asarray(theta, values.dtype) * away


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
        below the ray by enough, and have a jump at the ray: take small steps.

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

    def make_state(dtype: jnp.dtype) -> PbiState:
        r = one_per_loss(preferences, k, dtype, name="preferences")
        return PbiState(
            preferences=r,
            min_losses=one_per_loss(min_losses, k, dtype, name="min_losses"),
            theta=jnp.asarray(theta, dtype),
            last_weights=r / jnp.linalg.norm(r),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    return from_values(make_state, num_losses=k)
