"""IMTL-G: the update that makes the same angle with every gradient."""

import jax.numpy as jnp

from kdopt._linalg import dot
from kdopt._simplex import relative_inverse, sum_to_one, unit_gram
from kdopt._spectrum import pseudo_inverse
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def imtl_g_weights(gram: Gram) -> Weights:
    r"""Returns the weights of the update with equal projections on all unit gradients.

    With :math:`C` the cosines and :math:`n_i` the norms of the gradients:

    .. math:: \langle u, g_i / n_i \rangle = \text{const}: \qquad
        w_i \propto \frac{(C^+ \mathbf 1)_i}{n_i}, \qquad \sum_i w_i = 1

    For two losses :math:`w = (n_1, n_0) / (n_0 + n_1)`, the bisector of the angle.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.

    Returns:
        Weights of sum one, ``[k]``; some may be negative with three or more losses.
        Zero gradients get none. Where the sum vanishes, the weights are inverse to the
        norms.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.imtl_g_weights(gram)))
        0.5923 0.4077

    References:
        Liu et al., `Towards Impartial Multi-task Learning
        <https://openreview.net/forum?id=IMPnRXEWpvr>`_, ICLR 2021, gradient
        balance
    """
    cosines, norms, active = unit_gram(gram)
    inverse = relative_inverse(norms, active)
    fallback = sum_to_one(inverse)
    if len(gram) <= 2:
        return fallback
    weights = dot(pseudo_inverse(cosines), active.astype(gram.dtype)) * inverse
    total = jnp.sum(weights)
    size = jnp.sum(jnp.abs(weights))
    vanishes = jnp.abs(total) <= 16 * jnp.finfo(gram.dtype).eps * size
    return jnp.where(vanishes, fallback, weights / jnp.where(vanishes, 1, total))


def imtl_g(*, num_losses: int = 2, axis_name: str | None = None) -> Balancer:
    """Balances impartially (IMTL-G): equal projections on all gradients.

    The direction depends on where the gradients point, not on how long they are: a
    large loss gains nothing by being large. For two losses it is the bisector, which is
    also the direction of Nash-MTL, ConFIG and FairGrad with ``alpha=1``.

    Args:
        num_losses: K.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`imtl_g_weights` for the equation. Weights sum to one.
        Opposite gradients of two losses give a zero update.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.imtl_g()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.0767 1.0000 1.0000

    Notes:
        The paper solves a system of differences of unit vectors, the library uses the
        pseudo-inverse of the matrix of cosines: the same where the gradients are
        independent. With three losses or more and strong conflict the sum before
        normalisation can be negative; the update then points against all gradients, in
        the paper too.
    """
    return from_gram(gram_only(imtl_g_weights), num_losses, axis_name=axis_name)
