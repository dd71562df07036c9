"""ConFIG: the direction with equal cosines, as long as the sum of the projections."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import (
    Preference,
    check_choice,
    check_preference,
    preference_array,
)
from kdopt._linalg import dot
from kdopt._simplex import unit_gram
from kdopt._spectrum import pseudo_inverse
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Scalar, Weights

Length: TypeAlias = Literal[
    "projection", "min", "max", "harmonic", "arithmetic", "geometric"
]


def conflict_free_weights(
    gram: Gram, *, preference: Preference = None, length: Length = "projection"
) -> Weights:
    r"""Returns the weights of the conflict-free direction.

    With :math:`U` the unit gradients, :math:`C = U U^\top` their cosines and
    :math:`n_i` the norms:

    .. math::
        d = U^+ p = U^\top C^+ p, \qquad
        u = \Big( \sum_i \Big\langle g_i, \frac{d}{\lVert d \rVert} \Big\rangle \Big)
            \frac{d}{\lVert d \rVert}

    The cosines of :math:`u` with the gradients are proportional to the preferences
    :math:`p`. For two losses and equal preferences :math:`w_i = (n_0 + n_1) / (2 n_i)`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        preference: :math:`p \ge 0`, ``[k]``; equal by default. Only its ratios matter.
        length: Length of :math:`u`: the sum of the projections as above, or the
            ``"min"``, ``"max"`` or ``"harmonic"``, ``"arithmetic"`` or ``"geometric"``
            mean of the norms that are not zero.

    Returns:
        Weights, ``[k]``; 0 for a zero gradient, and all 0 where no direction has the
        wanted cosines, as between opposite gradients.

    Raises:
        ValueError: If there are not K preferences, or ``length`` is unknown.

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
    check_choice("length", length, get_args(Length))
    k = len(gram)
    cosines, norms, active = unit_gram(gram)
    p = jnp.where(active, preference_array(preference, k, gram.dtype), 0)
    parts = jnp.where(active, dot(pseudo_inverse(cosines), p), 0)
    reached = dot(cosines, parts)
    # The squared length of d; the missing part of p lies in the null space of U.
    square = dot(parts, reached)
    exists = jnp.max(jnp.abs(parts)) > k * jnp.sqrt(jnp.finfo(gram.dtype).eps) * (
        jnp.max(p)
    )
    exists &= square > 0
    longest = jnp.max(jnp.where(active, norms, 0))
    relative = jnp.where(active, norms / jnp.where(longest > 0, longest, 1), 0)
    square = jnp.where(exists, square, 1)
    if length == "projection":
        scale = dot(relative, reached) / square
    else:
        scale = _mean_length(relative, active, length) / jnp.sqrt(square)
    weights = scale * parts * jnp.where(active, longest / norms, 0)
    return jnp.where(exists, weights, 0)


def _mean_length(norms: Weights, active: jax.Array, length: Length) -> Scalar:
    """Returns the length of the update, in units of the longest gradient."""
    count = jnp.maximum(jnp.sum(active), 1).astype(norms.dtype)
    safe = jnp.where(active, norms, 1)
    if length == "min":
        return jnp.min(safe)
    if length == "max":
        return jnp.max(jnp.where(active, norms, 0))
    if length == "harmonic":
        return count / jnp.sum(jnp.where(active, 1 / safe, 0))
    if length == "geometric":
        return jnp.exp(jnp.sum(jnp.log(safe)) / count)
    return jnp.sum(jnp.where(active, norms, 0)) / count


def conflict_free(
    *,
    num_losses: int = 2,
    preference: Preference = None,
    length: Length = "projection",
    axis_name: str | None = None,
) -> Balancer:
    """Balances by conflict-free inverse gradients (ConFIG).

    If the gradients are linearly independent, no loss rises, and all unit gradients
    have the same inner product with the update. Its length is the sum of the
    projections of the gradients onto it: long where they agree and short where they
    conflict.

    Args:
        num_losses: K.
        preference: Ratios of the cosines, ``[k]``, not negative.
        length: See :func:`conflict_free_weights`: by default the update is short where
            gradients conflict; with a mean of the norms it is as long as elsewhere.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`conflict_free_weights` for the equation. Where the
        gradients agree the update is their sum: keep the learning rate of the sum.

    Raises:
        ValueError: If a preference is negative, there are not K of them, or ``length``
            is unknown.

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
    check_choice("length", length, get_args(Length))
    weights_fn = gram_only(conflict_free_weights, preference=preference, length=length)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
