"""The engine of DWA and SoftAdapt: means over windows of steps, compared in pairs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._present import present_mask
from kdopt._transform import check_num_losses, check_state, count_unless, values_array
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import held


class WindowsState(NamedTuple):
    """State of :func:`kdopt.dwa` and :func:`kdopt.softadapt`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        mean: Mean of the values of this window so far, ``[k]``.
        seen: Number of values in each mean, ``[k]``, int32.
        previous: Mean of the values of the last complete window that had any, ``[k]``.
        known: Whether there was such a window, ``[k]``.
        count: Number of steps in this window, int32.
        windows: Number of complete windows, int32.
        notfinite_count: Number of skipped steps, int32, with a value that was not
            finite.
    """

    loss_weights: Weights
    mean: Values
    seen: jax.Array
    previous: Values
    known: jax.Array
    count: jax.Array
    windows: jax.Array
    notfinite_count: jax.Array


def compare_windows(
    weights_fn: Callable[[Values, Values], Weights],
    *,
    initial_weight: float,
    num_losses: int,
    window: int,
) -> Scalarizer:
    """Builds a scalarizer from ``weights_fn(mean, previous_mean)``, called per window.

    Nothing happens until two windows are complete, and weights that are not finite are
    replaced by the previous ones. A loss missing from one of the two windows counts as
    unchanged.
    """
    k = check_num_losses(num_losses)
    if not isinstance(window, int) or window < 1:
        raise ValueError(
            f"window must be a number of steps, an int of at least 1, got {window!r}."
        )

    def init_fn(params: optax.Params) -> WindowsState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return WindowsState(
            loss_weights=jnp.full(k, initial_weight, dtype),
            mean=jnp.zeros(k, dtype),
            seen=jnp.zeros(k, jnp.int32),
            previous=jnp.zeros(k, dtype),
            known=jnp.zeros(k, bool),
            count=jnp.zeros((), jnp.int32),
            windows=jnp.zeros((), jnp.int32),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WindowsState]:
        del params, extra_args
        check_state(state.mean, k)
        dtype, mask = state.mean.dtype, present_mask(present, k)
        array = values_array(values, k, dtype, mask)
        finite = jnp.all(jnp.isfinite(array))
        taken = finite & (jnp.ones(k, bool) if mask is None else mask)
        count = state.count + finite.astype(jnp.int32)
        seen = state.seen + taken.astype(jnp.int32)
        share = (array - state.mean) / jnp.maximum(seen, 1).astype(dtype)
        mean = jnp.where(taken, state.mean + share, state.mean)
        full = count >= window
        now = jnp.where(seen > 0, mean, state.previous)
        before = jnp.where(state.known, state.previous, now)
        fresh = held(weights_fn(now, before), state.loss_weights)
        return updates, WindowsState(
            loss_weights=jnp.where(
                full & (state.windows > 0), fresh, state.loss_weights
            ),
            mean=jnp.where(full, 0, mean),
            seen=jnp.where(full, 0, seen),
            previous=jnp.where(full, now, state.previous),
            known=state.known | (full & (seen > 0)),
            count=jnp.where(full, 0, count),
            windows=state.windows + full.astype(jnp.int32),
            notfinite_count=count_unless(finite, state.notfinite_count),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
