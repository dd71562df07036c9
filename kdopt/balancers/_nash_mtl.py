"""Nash-MTL: the update on which bargaining losses agree."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._fixed_point import fair_point
from kdopt._linalg import quadratic_form
from kdopt._simplex import unit_gram
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def nash_mtl_weights(
    gram: Gram, *, max_norm: float | jax.Array | None = 1.0
) -> Weights:
    r"""Returns the weights of the Nash bargaining solution.

    .. math:: G \alpha = 1 / \alpha, \quad \alpha > 0, \qquad
        w = \alpha \min\Big(1, \frac{m}{\lVert u_\alpha \rVert}\Big)

    This :math:`\alpha` maximises :math:`\sum_i \log \langle g_i, u \rangle` over
    directions of a given length, and :math:`\lVert u_\alpha \rVert = \sqrt K`. For two
    losses with cosine :math:`\gamma` and norms :math:`n_i`,
    :math:`\alpha_i = 1 / (n_i \sqrt{1 + \gamma})`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        max_norm: :math:`m`; None for no bound.

    Returns:
        Positive weights, ``[k]``; 0 for a zero gradient. Found by damped Newton steps,
        to a residual of a few rounding errors times the condition number of the
        cosines.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> weights = kdopt.nash_mtl_weights(gram, max_norm=None)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.5915 0.4071

    References:
        Navon et al., `Multi-Task Learning as a Bargaining Game
        <https://arxiv.org/abs/2202.01017>`_, ICML 2022, Claim 3.1
    """
    weights = fair_point(gram, 1.0)
    if max_norm is None:
        return weights
    # The length of the update, in units where no product overflows.
    cosines, norms, _ = unit_gram(gram)
    lengths = weights * norms
    length = jnp.sqrt(jnp.maximum(quadratic_form(cosines, lengths), 0))
    bound = jnp.asarray(max_norm, gram.dtype)
    return weights * jnp.minimum(1, bound / jnp.where(length > 0, length, 1))


def nash_mtl(
    *,
    num_losses: int = 2,
    max_norm: float | jax.Array | None = 1.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by Nash bargaining (Nash-MTL).

    No loss rises: each falls by :math:`\eta / \alpha_i`, and scaling a loss changes
    nothing. The length of the update is :math:`\sqrt K`, or ``max_norm``, whatever the
    gradients are: it does not shrink near an optimum, so anneal the learning rate.

    Args:
        num_losses: K.
        max_norm: Largest length of the update; None for :math:`\sqrt K`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`nash_mtl_weights` for the equation. Weights are of order
        one over the norms. Opposite gradients have no solution; then the weights are
        finite and the gradients cancel. For weights that change every n steps, wrap it
        in :func:`kdopt.every`.

    Raises:
        ValueError: If ``max_norm`` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.nash_mtl()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.0542 0.7061 0.7061

    Notes:
        The authors' code linearises the problem for a host solver, starts from the
        weights of the step before and stops at a residual of 1e-3. Here the underlying
        convex problem is solved from scratch at every step.
    """
    check_range("max_norm", max_norm, 0.0, open_minimum=True)
    weights_fn = gram_only(nash_mtl_weights, max_norm=max_norm)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
