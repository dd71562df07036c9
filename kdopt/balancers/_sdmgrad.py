"""SDMGrad: the min-norm point, pulled towards a preferred direction."""

import jax
import jax.numpy as jnp

from kdopt._checks import (
    Preference,
    check_preference,
    check_range,
    preference_array,
)
from kdopt._linalg import dot
from kdopt._simplex import enlarge, leave_out, min_norm_point, nonzero
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def sdmgrad_weights(
    gram: Gram, *, rho: float | jax.Array = 0.3, preference: Preference = None
) -> Weights:
    r"""Returns the weights of the direction-oriented min-norm point.

    With :math:`g_0 = \sum_i p_i g_i`:

    .. math::
        \lambda = \arg\min_{\lambda \ge 0, \, \sum \lambda = 1}
            \Big\lVert \sum_i \lambda_i g_i + \rho \, g_0 \Big\rVert^2, \qquad
        w = \frac{\lambda + \rho \, p}{1 + \rho}

    So :math:`w` is the min-norm point among the weights of at least
    :math:`\rho \, p_i / (1 + \rho)`. For two losses and equal preferences
    :math:`\lambda_0 =
    \mathrm{clip}\big((b - c - \tfrac\rho2 (a - b)) / (a + b - 2c), 0, 1\big)`, with
    :math:`a = G_{00}`, :math:`b = G_{11}`, :math:`c = G_{01}`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        rho: :math:`\rho`: 0 is MGDA, infinity the preferred direction.
        preference: :math:`p \ge 0`, ``[k]``; ``1 / K`` each by default.

    Returns:
        Non-negative weights of sum one (if that of the preference is), ``[k]``, exact
        to rounding. A zero gradient is left out: it has no weight, and the others share
        its preference in proportion to theirs.

    Raises:
        ValueError: If there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.sdmgrad_weights(gram)))
        0.6000 0.4000

    References:
        Xiao et al., `Direction-oriented Multi-objective Learning: Simple and Provable
        Stochastic Algorithms <https://arxiv.org/abs/2305.18409>`_, NeurIPS 2023
    """
    active = nonzero(gram)
    p = preference_array(preference, len(gram), gram.dtype)
    present = jnp.where(active, p, 0)
    kept = jnp.sum(present)
    p = present * jnp.where(kept > 0, jnp.sum(p) / jnp.where(kept > 0, kept, 1), 0)
    # As the weights sum to one, this is the min-norm point of the g_i + rho g_0, here
    # divided by 1 + rho. The squares of these sums may cancel to 0, but these must not
    # count as zero gradients.
    gram, _ = enlarge(gram)
    pull = jnp.asarray(rho, gram.dtype)
    own, shared = 1 / (1 + pull), pull / (1 + pull)
    rates = dot(gram, p)
    sums = own**2 * gram + own * shared * (rates[:, None] + rates[None, :])
    sums = sums + shared**2 * dot(p, rates)
    least = jnp.finfo(gram.dtype).eps * own**2 * gram
    sums = jnp.where(jnp.eye(len(gram), dtype=bool), jnp.maximum(sums, least), sums)
    return own * min_norm_point(leave_out(sums, active)) + shared * p


def sdmgrad(
    *,
    num_losses: int = 2,
    rho: float | jax.Array = 0.3,
    preference: Preference = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances between MGDA and the mean gradient (SDMGrad).

    The update is that of :func:`kdopt.min_norm` with weights of at least
    :math:`\rho / (K (1 + \rho))`, so that no loss is ever dropped unless its gradient
    is zero.

    Args:
        num_losses: K.
        rho: Pull towards the preferred direction, at least 0.
        preference: Weights of the preferred direction, ``[k]``.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`sdmgrad_weights` for the equation. Weights sum to one.

    Raises:
        ValueError: If ``rho`` or a preference is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.sdmgrad(rho=0.3)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*jnp.abs(update)))
        0.0000 1.0000 1.0000

    Notes:
        The paper approaches the minimum by a few stochastic steps on the gradients of
        two further batches, from the weights of the step before; the authors' code
        takes 20 of them. Here the minimum on the batch at hand is exact. For slow
        weights see :func:`kdopt.modo`.
    """
    check_range("rho", rho, 0.0)
    check_preference(preference, num_losses)
    weights_fn = gram_only(sdmgrad_weights, rho=rho, preference=preference)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
