"""Scalarizers without memory: weights that are a pure function of the values."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._present import present_mask
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    start_state,
    values_array,
)
from kdopt._typing import Mask, PresentLike, Scalarizer, Values, Weights


def given_values(
    values: Any, like: jax.Array, present: PresentLike = None
) -> tuple[Values, Mask | None]:
    """Checks the values and the mask that :func:`kdopt.loss_weights` was given.

    Raises:
        ValueError: If there are none, or not one per entry of ``like``.
    """
    if values is None:
        raise ValueError(
            "The weights of this scalarizer depend on the loss values: use "
            "kdopt.loss_weights(opt_state, values), or give value_and_weighted_grad "
            "weights=lambda values: kdopt.loss_weights(opt_state, values)."
        )
    array = values_array(values, len(like), like.dtype, present)
    return array, present_mask(present, len(like))


def all_finite(tree: Any) -> jax.Array:
    """Whether no array in a tree holds NaN or infinity."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def held(fresh: Weights, last: Weights) -> Weights:
    """The last weights where the fresh ones are not finite."""
    return jnp.where(jnp.all(jnp.isfinite(fresh)), fresh, last)


def one_per_loss(
    numbers: float | Sequence[float] | jax.Array | None,
    num_losses: int,
    dtype: jnp.dtype,
    *,
    name: str,
) -> jax.Array:
    """Makes ``[k]`` of a number or of K of them; None stands for equal shares."""
    array = jnp.asarray(1 / num_losses if numbers is None else numbers, dtype)
    if array.shape not in ((), (num_losses,)):
        raise ValueError(
            f"{name} must be a number or {num_losses} of them, got an array of shape "
            f"{array.shape}. For another number of losses pass num_losses=."
        )
    return jnp.broadcast_to(array, (num_losses,))


def from_values(
    make_state: Callable[[jnp.dtype], Any],
    *,
    num_losses: int,
    remember: Callable[[Any, Values, Mask | None], tuple[dict, jax.Array]]
    | None = None,
) -> Scalarizer:
    """Makes a scalarizer of a state that knows its own weights.

    Args:
        make_state: ``make_state(dtype)`` returns a named tuple that holds the
            hyper-parameters, ``last_weights`` and ``notfinite_count`` and has the
            method ``loss_weights(values, present)``.
        num_losses: K.
        remember: From the state, the values and the mask of those present to other
            fields of the next state, and whether the values are sound.

    Returns:
        The scalarizer; it remembers the last weights, for a step that is not finite.
    """
    k = check_num_losses(num_losses)

    def fresh_state(dtype: jnp.dtype) -> Any:
        return start_state(make_state(dtype), dtype)

    def init_fn(params: optax.Params) -> Any:
        return fresh_state(accumulator_dtype(*jax.tree.leaves(params)))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del params, extra_args
        check_state(state.last_weights, k)
        dtype, mask = state.last_weights.dtype, present_mask(present, k)
        array = values_array(values, k, dtype, mask)
        sound, fields = jnp.all(jnp.isfinite(array)), {}
        if remember is not None:
            fields, defined = remember(state, array, mask)
            sound &= defined
        weights = state.loss_weights(array, mask)
        known = sound if mask is None else sound & mask
        # Made anew, so that injected hyper-parameters reach the next weights.
        return updates, fresh_state(dtype)._replace(
            last_weights=jnp.where(known, weights, state.last_weights),
            notfinite_count=count_unless(sound, state.notfinite_count),
            **fields,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
