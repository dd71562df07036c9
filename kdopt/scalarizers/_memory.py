"""Scalarizers that learn the weights of the next step from the values of this one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._present import present_mask
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    hold_unless,
    start_state,
    values_array,
)
from kdopt._typing import Mask, PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import all_finite


class MemoryState(NamedTuple):
    """State of :func:`kdopt.lagrangian`, :func:`kdopt.slaw`, :func:`kdopt.relobralo`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        notfinite_count: Number of skipped steps, int32, on which a value, or what would
            have been learned from it, was not finite.
        inner: State of the method itself.
    """

    loss_weights: Weights
    notfinite_count: jax.Array
    inner: Any


def from_memory(
    step_fn: Callable[[Values, Any, Mask], tuple[Weights, Any]],
    *,
    num_losses: int,
    initial_weights: Any,
    initial_state: Any,
) -> Scalarizer:
    """Builds a scalarizer from ``(values, state, present) -> (weights, state)``.

    Args:
        step_fn: Maps the values, the state and the mask of present losses to the
            weights for the next backward pass, ``[k]`` each, and the new state.
        num_losses: K.
        initial_weights: A number or ``[k]``.
        initial_state: Pytree of numbers or arrays, or a function from params to it.
    """
    k = check_num_losses(num_losses)

    def init_fn(params: optax.Params) -> MemoryState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        start = initial_state(params) if callable(initial_state) else initial_state
        return MemoryState(
            loss_weights=jnp.array(jnp.broadcast_to(initial_weights, (k,)), dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=start_state(start, dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MemoryState]:
        del params, extra_args
        check_state(state.loss_weights, k)
        mask = present_mask(present, k)
        array = values_array(values, k, state.loss_weights.dtype, mask)
        here = jnp.ones(k, bool) if mask is None else mask
        fresh = step_fn(array, state.inner, here)
        sound = jnp.all(jnp.isfinite(array)) & all_finite(fresh)
        weights, inner = hold_unless(sound, fresh, (state.loss_weights, state.inner))
        missed = count_unless(sound, state.notfinite_count)
        return updates, MemoryState(weights, missed, inner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
