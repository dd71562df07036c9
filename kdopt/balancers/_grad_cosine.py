"""Auxiliary losses weighted by the cosine of their gradient with the task's."""

from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp

from kdopt._checks import check_choice
from kdopt._simplex import unit_gram
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights

CosineRule: TypeAlias = Literal["weighted", "gated"]


def grad_cosine_weights(gram: Gram, *, rule: CosineRule = "weighted") -> Weights:
    r"""Returns weights of auxiliary losses by their cosines with the task.

    .. math:: w_0 = 1, \qquad w_j = \max(0, \cos(g_j, g_0)), \qquad
        w_j^{gated} = [\, \cos(g_j, g_0) \ge 0 \,]

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``, the task first.
        rule: ``"weighted"``, or ``"gated"``, all or nothing.

    Returns:
        Weights in [0, 1], ``[k]``; a gradient that is zero has the cosine 0.

    Raises:
        ValueError: If ``rule`` is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = jnp.array([[3.0, 4.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> weights = kdopt.grad_cosine_weights(grads @ grads.T)
        >>> print("{:.2f} {:.2f} {:.2f}".format(*weights))
        1.00 0.60 0.00

    References:
        Du et al., `Adapting Auxiliary Losses Using Gradient Similarity
        <https://arxiv.org/abs/1812.02224>`_, 2018
    """
    check_choice("rule", rule, get_args(CosineRule))
    cosines = unit_gram(gram)[0][0]
    weights = jnp.maximum(cosines, 0)
    if rule == "gated":
        weights = (cosines >= 0).astype(gram.dtype)
    return weights.at[0].set(1)


def grad_cosine(
    *,
    num_losses: int = 2,
    rule: CosineRule = "weighted",
    axis_name: str | None = None,
) -> Balancer:
    r"""Weights auxiliary losses by how well their gradients agree with the task's.

    Each helps the task loss fall:
    :math:`\langle g_0, u \rangle \ge \lVert g_0 \rVert^2`. The others may rise.

    Args:
        num_losses: K.
        rule: See :func:`grad_cosine_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`grad_cosine_weights` for the equation. The first weight
        is 1. Where the task gradient is zero, ``"weighted"`` takes no step.

    Raises:
        ValueError: If ``num_losses`` is not a positive int or ``rule`` unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.grad_cosine()
        >>> grads = (jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print("{:.2f} {:.2f}".format(*update))
        3.60 4.00
    """
    check_choice("rule", rule, get_args(CosineRule))
    weights_fn = gram_only(grad_cosine_weights, rule=rule)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
