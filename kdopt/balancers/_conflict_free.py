"""ConFIG: the direction with equal cosines, as long as the projections add up to."""

import functools

import jax.numpy as jnp

from kdopt._checks import Preference, check_preference, preference_array
from kdopt._linalg import dot
from kdopt._simplex import unit_gram
from kdopt._spectrum import pseudo_inverse
from kdopt._transform import from_weights
from kdopt._typing import Balancer, Gram, Weights


def conflict_free_weights(gram: Gram, *, preference: Preference = None) -> Weights:
    r"""Weights of the conflict-free direction.

    With :math:`U` the unit gradients, :math:`C = U U^\top` their cosines and
    :math:`n_i` the norms:

    .. math::
        d = U^+ p = U^\top C^+ p, \qquad
        u = \Big( \sum_i \Big\langle g_i, \frac{d}{\lVert d \rVert} \Big\rangle \Big)
            \frac{d}{\lVert d \rVert}

    The cosines of :math:`u` with the gradients are as the preferences :math:`p`. For
    two losses and equal preferences :math:`w_i = (n_0 + n_1) / (2 n_i)`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        preference: :math:`p \ge 0`, ``[k]``; equal by default. Only its ratios matter.

    Returns:
        Weights, ``[k]``; 0 for a zero gradient, and all 0 where no direction has the
        wanted cosines, as between opposite gradients.

    Raises:
        ValueError: If there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.conflict_free_weights(gram)))
        1.2265 0.8441

    References:
        Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed Neural
        Networks <https://arxiv.org/abs/2408.11104>`_, ICLR 2025, Eq. 2
    """
    k = len(gram)
    cosines, norms, active = unit_gram(gram)
    p = jnp.where(active, preference_array(preference, k, gram.dtype), 0)
    parts = jnp.where(active, dot(pseudo_inverse(cosines), p), 0)
    reached = dot(cosines, parts)
    # The squared length of d; what is lost of p lies in the null space of U.
    square = dot(parts, reached)
    exists = jnp.max(jnp.abs(parts)) > k * jnp.sqrt(jnp.finfo(gram.dtype).eps) * (
        jnp.max(p)
    )
    exists &= square > 0
    longest = jnp.max(jnp.where(active, norms, 0))
    relative = jnp.where(active, norms / jnp.where(longest > 0, longest, 1), 0)
    length = dot(relative, reached) / jnp.where(exists, square, 1)
    weights = length * parts * jnp.where(active, longest / norms, 0)
    return jnp.where(exists, weights, 0)


def conflict_free(
    *,
    num_losses: int = 2,
    preference: Preference = None,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by conflict-free inverse gradients (ConFIG).

    Where the gradients are independent, no loss rises, and all unit gradients have the
    same product with the update. Its length adapts: the sum of the projections of the
    gradients on it, long where they agree and short where they conflict.

    Args:
        num_losses: K.
        preference: Ratios of the cosines, ``[k]``, not negative.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`conflict_free_weights` for the equation. Where the
        gradients agree the update is their sum: keep the learning rate of that.

    Raises:
        ValueError: If a preference is negative, or there are not K of them.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.conflict_free()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.1588 2.0706 2.0706

    Notes:
        The authors invert the matrix of unit gradients, the library its Gram matrix,
        whose condition number is the square: gradients count as dependent from a sine
        of about 3e-4 in float32.
    """
    check_preference(preference, num_losses)
    weights_fn = functools.partial(conflict_free_weights, preference=preference)
    return from_weights(weights_fn, num_losses=num_losses, axis_name=axis_name)
