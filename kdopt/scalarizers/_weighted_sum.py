"""Fixed and scheduled weights with one backward pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Scalarizer, Weights


class WeightedSumState(NamedTuple):
    """State of :func:`weighted_sum`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        count: Number of steps, int32.
    """

    loss_weights: Weights
    count: jax.Array


def weighted_sum(weights: Sequence[optax.ScalarOrSchedule] | jax.Array) -> Scalarizer:
    r"""Weights the losses by numbers or schedules, with one backward pass.

    .. math:: u = \sum_i w_i(t) \, \nabla L_i

    The baseline of every comparison, and a way to warm up a distillation loss.
    :func:`kdopt.linear` does the same with K gradients, for K backward passes.

    Args:
        weights: K numbers or schedules, functions from the step to a number.

    Returns:
        A scalarizer of ``len(weights)`` losses; ``update`` needs no ``values``.

    Raises:
        ValueError: If the weights are not a non-empty list of numbers or schedules.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> warm_up = optax.linear_schedule(0.0, 8.0, transition_steps=4)
        >>> tx = kdopt.weighted_sum([1.0, warm_up])
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> print(kdopt.loss_weights(state))
        [1. 0.]
        >>> _, state = tx.update(params, state, params)
        >>> print(kdopt.loss_weights(state))
        [1. 2.]
    """
    if jnp.ndim(weights) != 1 if isinstance(weights, jax.Array) else not weights:
        raise ValueError(
            f"weights must be a list of K numbers or schedules, got {weights!r}."
        )

    def at(count: jax.Array, dtype: jnp.dtype) -> Weights:
        current = [w(count) if callable(w) else w for w in weights]
        return jnp.stack([jnp.asarray(w, dtype) for w in current])

    def init_fn(params: optax.Params) -> WeightedSumState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        count = jnp.zeros((), jnp.int32)
        return WeightedSumState(at(count, dtype), count)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightedSumState]:
        del params, extra_args
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, WeightedSumState(at(count, state.loss_weights.dtype), count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
