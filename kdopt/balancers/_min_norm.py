"""MGDA: the point of least norm in the convex hull of the gradients."""

from kdopt._simplex import min_norm_point
from kdopt._transform import from_weights
from kdopt._typing import Balancer, Gram, Weights


def min_norm_weights(gram: Gram) -> Weights:
    r"""Weights of the convex combination of least norm.

    .. math:: w = \arg\min_{w \ge 0, \, \sum_i w_i = 1} w^\top G w

    For two losses, with :math:`a = G_{00}`, :math:`b = G_{11}`, :math:`c = G_{01}`:
    :math:`w_1 = \mathrm{clip}\big((a - c) / (a + b - 2c), 0, 1\big)`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.

    Returns:
        Non-negative weights of sum one, ``[k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(kdopt.min_norm_weights(gram))
        [0.6 0.4]

    References:
        Désidéri, `Multiple-gradient descent algorithm (MGDA)
        <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012;
        Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
        <https://arxiv.org/abs/1810.04650>`_, NeurIPS 2018, Eq. 3
    """
    return min_norm_point(gram)


def min_norm(*, num_losses: int = 2, axis_name: str | None = None) -> Balancer:
    r"""Balances by multiple-gradient descent (MGDA).

    The update decreases no loss more slowly than any other: to first order every loss
    with positive weight falls by :math:`\eta \lVert u \rVert^2` and the others by more.
    It is zero exactly at Pareto-stationary points. Its length is at most that of the
    shortest gradient, so learning rates are larger than for a sum of losses.

    Args:
        num_losses: K.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`min_norm_weights` for the equation. Weights sum to one.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = optax.chain(kdopt.min_norm(), optax.sgd(0.1))
        >>> params = jnp.zeros(3)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(updates)
        [-0.  -0.1 -0.1]

    Notes:
        A gradient that is exactly zero is left out. The original would give it all the
        weight and stop: then a converged distillation loss would end the training.
    """
    return from_weights(min_norm_weights, num_losses=num_losses, axis_name=axis_name)
