"""Krum: the gradient that has most of the others near it."""

import functools

import jax
import jax.numpy as jnp

from kdopt._simplex import normalize
from kdopt._transform import check_num_losses, from_weights
from kdopt._typing import Balancer, Gram, Weights


def krum_weights(gram: Gram, *, num_byzantine: int, num_selected: int = 1) -> Weights:
    r"""Weights of the mean of the most central gradients.

    .. math:: s_i = \sum_{j \in N_i} \lVert g_i - g_j \rVert^2

    with :math:`N_i` the :math:`K - f - 2` nearest others; the :math:`m` gradients of
    least :math:`s_i` get the weight :math:`1 / m`, the others none.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        num_byzantine: :math:`f`, how many gradients may be arbitrary.
        num_selected: :math:`m`; 1 is Krum, more is Multi-Krum.

    Returns:
        Non-negative weights of sum one, ``[k]``; ties go to the first.

    Raises:
        ValueError: If K is below ``num_byzantine + 3`` or ``num_selected``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = jnp.array([[1.0], [1.1], [1.3], [9.0]])
        >>> print(kdopt.krum_weights(grads @ grads.T, num_byzantine=1))
        [1. 0. 0. 0.]

    References:
        Blanchard et al., `Machine Learning with Adversaries: Byzantine Tolerant
        Gradient Descent <https://arxiv.org/abs/1703.02757>`_, NeurIPS 2017, section 4
    """
    k = len(gram)
    _check(k, num_byzantine, num_selected)
    scaled, _ = normalize(gram)
    squares = jnp.diagonal(scaled)
    distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * scaled, 0)
    others = jnp.where(jnp.eye(k, dtype=bool), jnp.inf, distances)
    nearest = jnp.sort(others, axis=1)[:, : k - num_byzantine - 2]
    _, chosen = jax.lax.top_k(-jnp.sum(nearest, axis=1), num_selected)
    return jnp.zeros(k, gram.dtype).at[chosen].set(1 / num_selected)


def krum(
    *,
    num_losses: int = 3,
    num_byzantine: int = 0,
    num_selected: int = 1,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by choosing the most central gradients (Krum, Multi-Krum).

    Up to ``num_byzantine`` gradients may be arbitrary without leading the update
    astray: for many teachers of unknown quality rather than for a task and a teacher.

    Args:
        num_losses: K, at least ``num_byzantine + 3``.
        num_byzantine: How many gradients may be arbitrary.
        num_selected: How many gradients to average; 1 is Krum.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`krum_weights` for the equation. Weights sum to one.

    Raises:
        ValueError: If K is below ``num_byzantine + 3`` or ``num_selected``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.krum(num_losses=4, num_byzantine=1, num_selected=2)
        >>> grads = tuple(jnp.array([x]) for x in (1.0, 1.5, 1.2, 9.0))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(1)))
        >>> print(update)
        [1.1]

    Notes:
        Distances are squared, as in the paper; TorchJD adds up plain ones.
    """
    k = check_num_losses(num_losses, minimum=3)
    _check(k, num_byzantine, num_selected)
    weights_fn = functools.partial(
        krum_weights, num_byzantine=num_byzantine, num_selected=num_selected
    )
    return from_weights(weights_fn, num_losses=k, axis_name=axis_name)


def _check(k: int, num_byzantine: int, num_selected: int) -> None:
    if num_byzantine < 0 or k < num_byzantine + 3:
        raise ValueError(
            f"Krum needs at least num_byzantine + 3 = {num_byzantine + 3} losses, and "
            f"num_byzantine not negative, got {k} losses."
        )
    if not 1 <= num_selected <= k:
        raise ValueError(
            f"num_selected must lie in [1, {k}], the number of losses, got "
            f"{num_selected}."
        )
