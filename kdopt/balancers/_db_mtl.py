"""DB-MTL: running means of the gradients of log-losses, made equally long."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._log_losses import gaps_above
from kdopt._traces import from_traces
from kdopt._typing import Balancer, Gram, Values, Weights


def db_mtl_weights(gram: Gram) -> Weights:
    r"""Returns weights that make all gradients as long as the longest.

    .. math:: w_i = \frac{\max_j \lVert g_j \rVert}{\lVert g_i \rVert}

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``; :func:`kdopt.db_mtl` passes that
            of the running means of the log-gradients.

    Returns:
        Weights of at least one, ``[k]``; 1 for a gradient that is zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.db_mtl_weights(gram)))
        1.4530 1.0000

    References:
        Lin et al., `Dual-Balancing for Multi-Task Learning
        <https://arxiv.org/abs/2308.12029>`_, 2023, Algorithm 1
    """
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    active = norms > 0
    return jnp.where(active, jnp.max(norms) / jnp.where(active, norms, 1), 1)


def db_mtl(
    *,
    num_losses: int = 2,
    beta: float | jax.Array = 0.9,
    beta_decay: float | jax.Array = 0.0,
    eps: float | jax.Array = 1e-8,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances losses by their logarithm and gradients by their length (DB-MTL).

    .. math::
        m_i \leftarrow \beta_t m_i + (1 - \beta_t) \frac{g_i}{L_i}, \quad
        \beta_t = \frac{\beta}{t^\sigma}, \qquad
        u = \max_j \lVert m_j \rVert \sum_i \frac{m_i}{\lVert m_i \rVert}

    It makes two passes over gradients and means, which are K copies of the parameters.
    ``update`` needs ``values``, which must be positive: a loss of exactly 0 counts as
    absent, has no weight and keeps its mean; a step with a negative one is skipped and
    counted.

    Args:
        num_losses: K.
        beta: :math:`\beta` in [0, 1).
        beta_decay: :math:`\sigma \ge 0`.
        eps: Floor of positive loss values.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer, with a :class:`kdopt.balancers.TracesState`. Weights are at least 1
        and apply to gradients of log-losses: the update grows as a loss vanishes.
        Opposite gradients give zero.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.db_mtl(beta=0.0)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> state = tx.init(jnp.zeros(3))
        >>> update, _ = tx.update(grads, state, values=(1.0, 1.0))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.1881 2.4530 2.4530

    References:
        Lin et al., `Dual-Balancing for Multi-Task Learning
        <https://arxiv.org/abs/2308.12029>`_, 2023, Algorithm 1

    Notes:
        The means start at zero, as in the authors' code, without bias correction: for
        constant ``beta`` the first update is ``1 - beta`` times as long. The code adds
        1e-8 to losses and norms; here they have a floor.
    """
    check_range("beta", beta, 0.0, 1.0, open_maximum=True)
    check_range("beta_decay", beta_decay, 0.0)
    check_range("eps", eps, 0.0, open_minimum=True)

    def rate_fn(count: jax.Array) -> jax.Array:
        decay = count ** -jnp.asarray(beta_decay, count.dtype)
        return 1 - jnp.asarray(beta, count.dtype) * decay

    def scales_fn(values: Values) -> tuple[Weights, jax.Array]:
        found = gaps_above(values, 0.0, eps)
        return jnp.where(found.defined, 1 / found.gaps, jnp.nan), ~found.absent

    return from_traces(
        lambda gram, _, inner: (db_mtl_weights(gram), inner),
        rate_fn,
        num_losses=num_losses,
        scales_fn=scales_fn,
        axis_name=axis_name,
    )
