"""FERERO: the least-norm direction that brings the losses into a given ratio."""

import jax
import jax.numpy as jnp

from kdopt._checks import Preference, check_preference, check_range, preference_array
from kdopt._linalg import dot, quadratic_form
from kdopt._spectrum import pseudo_inverse
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Scalar, Values, Weights

_LONGEST = 100.0


def ferero_weights(
    gram: Gram,
    values: Values,
    *,
    preference: Preference = None,
    pull: float | jax.Array = 1.0,
) -> Weights:
    r"""Returns the weights of the shortest direction that restores the ratio of losses.

    With a basis :math:`B`, ``[k - 1, k]``, of what is orthogonal to the wanted ratio
    :math:`p`, so that :math:`H = B L` vanishes exactly where :math:`L \propto p`:

    .. math::
        d = \arg\min_d \tfrac12 \lVert d \rVert^2 + \max_i \langle -g_i, d \rangle
        \quad \text{s.t.} \quad B J d = c H, \qquad
        w = B^\top \mu + \tau \, w_\rho

    The allowed directions form a line, :math:`d_0 + \tau \rho`, with the shortest one,
    :math:`d_0`, and a direction :math:`\rho` along which all losses fall in the wanted
    ratio, so that :math:`\tau` is found among finitely many candidates.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        values: Losses :math:`L`, ``[k]``.
        preference: Wanted ratio :math:`p > 0`, ``[k]``; equal losses by default.
        pull: :math:`c \ge 0`, how fast the ratio is restored: the deviation falls by
            this fraction per unit of learning rate.

    Returns:
        Weights, ``[k]``, which may be negative: a loss that is too low for its ratio
        may have to rise. Where gradients are dependent the ratio is restored as far as
        possible, and by at most 100 times the longest gradient. A zero gradient is left
        out.

    Raises:
        ValueError: If there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = jnp.array([[1.0, 0.2], [-0.4, 0.8]])
        >>> weights = kdopt.ferero_weights(
        ...     grads @ grads.T, jnp.array([0.5, 1.0]), preference=[0.6, 0.4]
        ... )
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.3258 1.0112

    References:
        Chen et al., `FERERO: A Flexible Framework for Preference-Guided Multi-Objective
        Learning <https://arxiv.org/abs/2412.01773>`_, NeurIPS 2024

    Notes:
        The authors' code is for two losses, and solves the dual problem by projected
        gradient steps.
    """
    k, dtype = len(gram), gram.dtype
    active = jnp.diagonal(gram) > 0
    ratio = jnp.where(active, preference_array(preference, k, dtype), 0)
    length = jnp.sqrt(dot(ratio, ratio))
    ratio = ratio / jnp.where(length > 0, length, 1)
    # Project onto the complement of the ratio, among the losses that have a gradient.
    basis = jnp.diag(active.astype(dtype)) - ratio[:, None] * ratio[None, :]
    scale = jnp.max(jnp.diagonal(gram))
    scale = jnp.where(scale > 0, scale, 1)
    matrix = gram / scale
    inverse = pseudo_inverse(dot(basis, dot(matrix, basis)))

    deviation = dot(basis, values)
    size = jnp.max(jnp.abs(deviation))
    back = dot(basis, dot(inverse, deviation / jnp.where(size > 0, size, 1)))
    reach = jnp.sqrt(jnp.maximum(quadratic_form(matrix, back), 0))
    wanted = jnp.asarray(pull, dtype) * size / scale
    back = back * jnp.minimum(wanted, _LONGEST / jnp.where(reach > 0, reach, 1))

    along = ratio - dot(basis, dot(inverse, dot(basis, dot(matrix, ratio))))
    square = jnp.maximum(quadratic_form(matrix, along), 0)
    tau = _line_minimum(dot(matrix, back), square, ratio, active)
    weights = back + tau * along
    return jnp.where(jnp.any(active), weights, 1 / k)


def _line_minimum(
    falls: Weights, square: Scalar, ratio: Weights, active: jax.Array
) -> Scalar:
    r"""Minimises :math:`\tfrac12 s \tau^2 + \max_i -(r_i + \tau s p_i)`.

    The minimum is that of one of the parabolas, :math:`\tau = p_i`, or a point where
    two of them meet.
    """
    gaps = square * (ratio[:, None] - ratio[None, :])
    meets = gaps != 0
    points = (falls[None, :] - falls[:, None]) / jnp.where(meets, gaps, 1)
    points = jnp.clip(jnp.where(meets, points, 0), 0, jnp.max(ratio)).ravel()
    taus = jnp.concatenate([ratio, points])
    rises = -(falls[None, :] + taus[:, None] * square * ratio[None, :])
    worst = jnp.max(jnp.where(active[None, :], rises, -jnp.inf), axis=1)
    return taus[jnp.argmin(square * taus**2 / 2 + worst)]


def ferero(
    *,
    num_losses: int = 2,
    preference: Preference = None,
    pull: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Lowers the losses while bringing them into a given ratio (FERERO).

    On the ray :math:`L \propto p` it is :func:`kdopt.min_norm` among the directions
    that stay on it; off the ray it returns at the rate ``pull``, raising a loss if it
    must.

    Args:
        num_losses: K.
        preference: Wanted ratio of the loss values, ``[k]``, not negative; equal by
            default.
        pull: See :func:`ferero_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`ferero_weights` for the equation. ``update`` needs
        ``values``. Weights may be negative, and grow where gradients are short compared
        to the deviation: clip after it.

    Raises:
        ValueError: If ``pull`` or a preference is negative, or there are not K of them.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.ferero()
        >>> grads = (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)), values=(1.0, 1.0))
        >>> print("{:.4f} {:.4f}".format(*update))
        0.5000 0.5000
    """
    k = check_num_losses(num_losses)
    check_preference(preference, k)
    check_range("pull", pull, 0.0)

    def weights_fn(gram: Gram, values: Values, state: tuple[()]):
        return ferero_weights(gram, values, preference=preference, pull=pull), state

    return from_gram(weights_fn, k, needs_values=True, axis_name=axis_name)
