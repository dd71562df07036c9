"""Scalarizers whose weights are a function of the values of the current step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._loss_weights import ValuesState, weights_of_values
from kdopt._present import present_mask
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    start_state,
    values_array,
)
from kdopt._typing import Mask, PresentLike, Scalarizer, Values, Weights


def all_finite(tree: Any) -> jax.Array:
    """Tells whether no array in a tree holds NaN or infinity."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def held(fresh: Weights, last: Weights) -> Weights:
    """Returns the fresh weights, or the last ones if those are not finite."""
    return jnp.where(jnp.all(jnp.isfinite(fresh)), fresh, last)


def one_per_loss(
    numbers: float | Sequence[float] | jax.Array | None,
    num_losses: int,
    dtype: jnp.dtype,
    *,
    name: str,
) -> jax.Array:
    """Converts a number or K of them to ``[k]``; None stands for equal shares."""
    array = jnp.asarray(1 / num_losses if numbers is None else numbers, dtype)
    if array.shape not in ((), (num_losses,)):
        raise ValueError(
            f"{name} must be a number or {num_losses} of them, got an array of shape "
            f"{array.shape}. For another number of losses pass num_losses=."
        )
    return jnp.broadcast_to(array, (num_losses,))


def from_values(
    state_type: type[ValuesState],
    start: Callable[[jnp.dtype], tuple[Weights, dict[str, Any], dict[str, Any]]],
    *,
    num_losses: int,
    remember: Callable[[ValuesState, Values, Mask | None], tuple[dict, jax.Array]]
    | None = None,
) -> Scalarizer:
    """Builds a scalarizer from a function of values to weights.

    Args:
        state_type: A :class:`ValuesState` with the function as its ``weights_fn``.
        start: Maps a dtype to the weights before the first step, ``[k]``, the settings
            and the memory.
        num_losses: K.
        remember: Maps the state, the values and the mask of those present to the next
            memory, and whether the values are sound.
    """
    k = check_num_losses(num_losses)

    def fresh_state(dtype: jnp.dtype) -> ValuesState:
        state = state_type(*start(dtype), jnp.zeros((), jnp.int32))
        return start_state(state, dtype)

    def init_fn(params: optax.Params) -> ValuesState:
        return fresh_state(accumulator_dtype(*jax.tree.leaves(params)))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ValuesState]:
        del params, extra_args
        check_state(state.loss_weights, k)
        dtype, mask = state.loss_weights.dtype, present_mask(present, k)
        array = values_array(values, k, dtype, mask)
        sound, memory = jnp.all(jnp.isfinite(array)), state.memory
        if remember is not None:
            memory, defined = remember(state, array, mask)
            sound &= defined
        weights = weights_of_values(state, array, mask)
        known = sound if mask is None else sound & mask
        # Built anew, so that injected hyper-parameters reach the next weights.
        return updates, fresh_state(dtype)._replace(
            loss_weights=jnp.where(known, weights, state.loss_weights),
            memory=memory,
            notfinite_count=count_unless(sound, state.notfinite_count),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
