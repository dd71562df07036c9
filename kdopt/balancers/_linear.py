"""Fixed or scheduled weights: the baseline of every comparison."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._gram import combine
from kdopt._present import clear_values, present_mask
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PresentLike, Weights


class LinearState(NamedTuple):
    """State of :func:`linear`.

    Attributes:
        count: Number of steps, int32.
        loss_weights: Weights of the last step, ``[k]``; before the first, those of the
            first.
    """

    count: jax.Array
    loss_weights: Weights


def linear(weights: Sequence[optax.ScalarOrSchedule] | jax.Array) -> Balancer:
    r"""Combines the gradients with weights that are known beforehand.

    .. math:: u = \sum_i w_i(t) \, g_i

    This is a plain weighted sum of losses, at the price of K backward passes. For the
    same update with one, pass the weights to :func:`kdopt.value_and_weighted_grad`.

    Args:
        weights: Coefficients :math:`w`, ``[k]``; any real numbers, or schedules of the
            step number.

    Returns:
        A balancer of ``len(weights)`` losses.

    Raises:
        ValueError: If the weights are not a non-empty list of numbers or schedules.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = kdopt.linear([0.1, optax.linear_schedule(0.9, 0.0, 2)])
        >>> grads = (jnp.array([10.0]), jnp.array([20.0]))
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(3):
        ...     update, state = tx.update(grads, state)
        ...     print(update)
        [19.]
        [10.]
        [1.]
    """
    if not jnp.iterable(weights) or not len(weights):
        raise ValueError(f"weights must be a list of K numbers, got {weights!r}.")
    entries = list(weights)
    k = len(entries)
    for entry in entries:
        if not callable(entry) and jnp.ndim(entry) != 0:
            raise ValueError(
                f"weights must hold K numbers or schedules, got {entry!r} among them."
            )

    def current(count: jax.Array, dtype: jnp.dtype) -> Weights:
        numbers = [w(count) if callable(w) else w for w in entries]
        return jnp.stack([jnp.asarray(number, dtype) for number in numbers])

    def init_fn(params: optax.Params) -> LinearState:
        count = jnp.zeros((), jnp.int32)
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return LinearState(count, current(count, dtype))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LinearState]:
        del extra_args
        grads = per_loss_tuple(updates, params, k, present)
        now = current(state.count, state.loss_weights.dtype)
        now = clear_values(now, present_mask(present, k))
        count = jnp.asarray(optax.safe_increment(state.count))
        return combine(grads, now), LinearState(count, now)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
