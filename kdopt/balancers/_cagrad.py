"""CAGrad: the best worst decrease within a ball around the mean gradient."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._cone import conflict_averse_step
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def cagrad_weights(gram: Gram, *, c: float | jax.Array = 0.5) -> Weights:
    r"""Returns the weights of a direction near the mean that best helps the worst loss.

    .. math::
        u = \arg\max_{\lVert u - g_0 \rVert \le c \lVert g_0 \rVert}
            \; \min_i \; \langle g_i, u \rangle, \qquad g_0 = \frac1K \sum_i g_i

    so that :math:`w_i = \frac1K + x_i` with :math:`x \ge 0`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        c: Radius of the ball in lengths of the mean gradient.

    Returns:
        Weights of at least 1/K, ``[k]``; zeros if ``c`` is at least 1 and the update is
        only rounding error, as when all gradients cancel. Found by following the
        piecewise linear path of solutions, exact to rounding; between gradients whose
        sum is 1e-3 of their length or less the update stays short of the edge of the
        ball.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.cagrad_weights(gram)))
        0.7041 0.5000

    References:
        Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
        <https://arxiv.org/abs/2110.14048>`_, NeurIPS 2021, Algorithm 1
    """
    step = conflict_averse_step(gram, jnp.asarray(c, gram.dtype))
    return 1 / len(gram) + step


def cagrad(
    *,
    num_losses: int = 2,
    c: float | jax.Array = 0.5,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by conflict-averse gradient descent (CAGrad).

    With ``c = 0`` this is the mean gradient; as ``c`` grows the direction turns towards
    that of :func:`kdopt.min_norm`. No loss rises, to first order, if ``c`` is at least
    1; below 1 every stationary point is one of the mean loss, which the method
    therefore still minimises.

    Args:
        num_losses: K.
        c: Radius of the ball in lengths of the mean gradient, at least 0.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`cagrad_weights` for the equation. Weights sum to at least
        1, and the update is at most ``1 + c`` times as long as the mean gradient: use
        the learning rate of the mean loss. A zero gradient has weight 1/K and does not
        count as a loss to be helped.

    Raises:
        ValueError: If ``c`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.cagrad(c=0.5)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.1835 1.2041 1.2041

    Notes:
        The paper solves the dual problem with a host solver and divides by the norm of
        the combination found; where that vanishes, the update is zero. The authors'
        code also divides the update by ``1 + c ** 2`` by default; here, as in the
        paper, it is not divided.
    """
    check_range("c", c, 0.0)
    return from_gram(gram_only(cagrad_weights, c=c), num_losses, axis_name=axis_name)
