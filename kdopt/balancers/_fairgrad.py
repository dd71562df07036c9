"""FairGrad: alpha-fair rates of decrease."""

import jax

from kdopt._checks import check_range
from kdopt._fixed_point import fair_point
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def fairgrad_weights(gram: Gram, *, alpha: float | jax.Array = 1.0) -> Weights:
    r"""Returns the weights of the alpha-fair update.

    .. math:: G w = w^{-1 / \alpha}, \qquad w > 0

    At the solution :math:`u` maximises
    :math:`\sum_i \langle g_i, u \rangle^{1 - \alpha} / (1 - \alpha)` among directions
    of its length: :math:`\alpha \to 0` is the sum of losses, 1 is Nash-MTL, 2 the
    harmonic mean and :math:`\alpha \to \infty` the max-min of MGDA.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        alpha: :math:`\alpha`, from 0.1 to 10.

    Returns:
        Positive weights, ``[k]``; 0 for a zero gradient, or where a weight underflows,
        as for a loss that the others lower anyway. Found by Newton steps, to a residual
        of a few rounding errors times the condition number of the cosines, for
        gradients with norms from 1e-18 to 1e+18.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.fairgrad_weights(gram, alpha=2.0)))
        0.4714 0.3195

    References:
        Ban and Ji, `Fair Resource Allocation in Multi-Task Learning
        <https://arxiv.org/abs/2402.15638>`_, ICML 2024, Eq. 4 and Algorithm 1
    """
    return fair_point(gram, alpha)


def fairgrad(
    *,
    num_losses: int = 2,
    alpha: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by alpha-fair allocation of the decrease (FairGrad).

    No loss rises: each falls by :math:`\eta \, w_i^{-1 / \alpha}`. A larger ``alpha``
    cares more for the loss that falls least.

    Args:
        num_losses: K.
        alpha: Fairness, from 0.1 to 10; the paper takes values from 0.3 to 10.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`fairgrad_weights` for the equation. Weights of gradients
        that are :math:`s` times as long are :math:`s^{-2 \alpha / (1 + \alpha)}` times
        as large, and the update is of length
        :math:`\propto s^{(1 - \alpha) / (1 + \alpha)}`: with ``alpha=1`` it does not
        change, with more it grows as the gradients shrink. Clip it, and anneal the
        learning rate. Opposite gradients have no solution; then the weights are finite
        and the gradients cancel.

    Raises:
        ValueError: If ``alpha`` is outside [0.1, 10].

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.fairgrad(alpha=1.0)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.0766 0.9985 0.9985

    Notes:
        The authors' code minimises the squared residual with a host solver. That has
        stationary points other than the solution; the convex problem solved here has
        none.
    """
    check_range("alpha", alpha, 0.1, 10.0)
    weights_fn = gram_only(fairgrad_weights, alpha=alpha)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
