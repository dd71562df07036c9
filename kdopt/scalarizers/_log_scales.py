"""The engine of UW and IMTL-L: a learned logarithmic scale for each loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import check_num_losses, hold_unless, values_array
from kdopt._typing import Scalarizer, Weights


class LogScalesState(NamedTuple):
    """State of :func:`kdopt.uncertainty` and :func:`kdopt.imtl_l`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        log_scales: The learned scalars, ``[k]``.
        notfinite_count: Number of steps, int32, that were left out because a value was
            not finite.
        inner: State of their optimiser.
    """

    loss_weights: Weights
    log_scales: jax.Array
    notfinite_count: jax.Array
    inner: Any


def log_scales(
    weights_fn: Callable[[jax.Array], Weights],
    slope_fn: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    learning_rate: optax.ScalarOrSchedule,
    initial: float | jax.Array,
    num_losses: int,
) -> Scalarizer:
    """Makes a scalarizer whose log-scales descend along ``slope_fn(scales, values)``.

    The scales are learned by Adam, so that a loss of any size moves them alike.
    """
    k = check_num_losses(num_losses)
    optimizer = optax.adam(learning_rate)

    def init_fn(params: optax.Params) -> LogScalesState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        scales = jnp.full(k, initial, dtype)
        return LogScalesState(
            loss_weights=weights_fn(scales),
            log_scales=scales,
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=optimizer.init(scales),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LogScalesState]:
        del params, extra_args
        array = values_array(values, k, state.log_scales.dtype)
        slope = slope_fn(state.log_scales, array)
        finite = jnp.all(jnp.isfinite(slope))
        step, inner = optimizer.update(jnp.where(finite, slope, 0), state.inner)
        scales, inner = hold_unless(
            finite,
            (optax.apply_updates(state.log_scales, step), inner),
            (state.log_scales, state.inner),
        )
        missed = jnp.where(finite, 0, 1).astype(jnp.int32)
        return updates, LogScalesState(
            weights_fn(scales), scales, state.notfinite_count + missed, inner
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
