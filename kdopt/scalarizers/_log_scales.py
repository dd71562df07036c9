"""The engine of UW and IMTL-L: a learned logarithmic scale for each loss."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._log_losses import gaps_above
from kdopt._present import present_mask
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    hold_unless,
    start_state,
    values_array,
)
from kdopt._typing import PresentLike, Scalarizer, Weights
from kdopt.scalarizers._values import all_finite

LARGEST = 1e18
"""Largest loss, and largest ratio between a scale and 1."""

STEEPEST = 100.0
"""A loss counts as at most this many times its scale: after a larger slope Adam, which
divides by the squares of the past, would hardly move for a long time."""


class LogScalesState(NamedTuple):
    """State of :func:`kdopt.uncertainty` and :func:`kdopt.imtl_l`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        log_scales: The learned scalars, ``[k]``.
        notfinite_count: Number of skipped steps, int32, on which a value was not
            finite, negative or above 1e18, or a scale left the range from 1e-18 to
            1e18.
        inner: State of the optimiser of the scales.
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
    """Builds a scalarizer whose log-scales descend along ``slope_fn(scales, values)``.

    The scales are learned by Adam, so that losses of any size move them equally. A loss
    of exactly 0 counts as absent: its scale stays. Steps that lead out of the range, or
    have a loss without a logarithm, are skipped and counted.
    """
    k = check_num_losses(num_losses)
    optimizer = optax.adam(learning_rate)

    def init_fn(params: optax.Params) -> LogScalesState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        scales = start_state(jnp.full(k, initial, dtype), dtype)
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
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LogScalesState]:
        del params, extra_args
        check_state(state.log_scales, k)
        mask = present_mask(present, k)
        array = values_array(values, k, state.log_scales.dtype, mask)
        found = gaps_above(array, 0.0, 0.0, mask)
        slope = slope_fn(state.log_scales, jnp.where(found.usable, array, 1))
        slope = jnp.where(found.usable, jnp.clip(slope, -STEEPEST, STEEPEST), 0)
        step, inner = optimizer.update(slope, state.inner)
        step = jnp.where(found.usable, jnp.asarray(step), 0)
        scales = state.log_scales + step
        sound = found.defined & jnp.all(array <= LARGEST) & all_finite((scales, inner))
        sound &= jnp.all(jnp.abs(scales) <= math.log(LARGEST))
        scales, inner = hold_unless(
            sound, (scales, inner), (state.log_scales, state.inner)
        )
        missed = count_unless(sound, state.notfinite_count)
        return updates, LogScalesState(weights_fn(scales), scales, missed, inner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
