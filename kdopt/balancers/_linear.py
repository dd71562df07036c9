"""Fixed weights: the baseline of every comparison."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._gram import combine
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, Weights


class LinearState(NamedTuple):
    """The fixed weights, ``[k]``, where :func:`kdopt.loss_weights` finds them."""

    loss_weights: Weights


def linear(weights: Sequence[float] | jax.Array) -> Balancer:
    r"""Combines the gradients with fixed weights.

    .. math:: u = \sum_i w_i \, g_i

    This is a plain weighted sum of losses, at the price of K backward passes. For the
    same update with one, give the weights to :func:`kdopt.value_and_weighted_grad`.

    Args:
        weights: Coefficients :math:`w`, ``[k]``; any real numbers.

    Returns:
        A balancer of ``len(weights)`` losses.

    Raises:
        ValueError: If the weights are not a non-empty list of numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.linear([0.1, 0.9])
        >>> grads = (jnp.array([10.0]), jnp.array([20.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(1)))
        >>> print(update)
        [19.]
    """
    array = jnp.asarray(weights)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"weights must be a list of K numbers, got {weights!r}.")

    def init_fn(params: optax.Params) -> LinearState:
        return LinearState(array.astype(accumulator_dtype(*jax.tree.leaves(params))))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LinearState]:
        del extra_args
        grads = per_loss_tuple(updates, params, len(array))
        current = array.astype(state.loss_weights.dtype)
        return combine(grads, current), LinearState(current)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
