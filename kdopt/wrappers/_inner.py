"""Helpers of the wrappers for the wrapped transform and its gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from kdopt._mesh import explicit_sharding
from kdopt._transform import per_loss_tuple
from kdopt._typing import PerLossGrads, PresentLike


def any_per_loss_tuple(
    updates: Any, params: Any, present: PresentLike = None
) -> PerLossGrads:
    """Converts gradient trees to a tuple; the wrapped balancer checks how many."""
    counted = isinstance(updates, (tuple, list, Mapping))
    k = len(updates) if counted else 2
    return per_loss_tuple(updates, params, k, present)


def update_if(
    run: jax.Array, update: Callable[[], tuple[Any, Any]], state: Any
) -> tuple[Any, Any]:
    """Runs an update if wanted, else returns zeros and the old state."""
    shapes, _ = jax.eval_shape(update)

    def zeros(like: Any) -> jax.Array:
        # Both branches must agree on what is sharded or varies by device.
        zero = jax.lax.full(like.shape, 0, like.dtype, sharding=explicit_sharding(like))
        manual = getattr(like, "manual_axis_type", None)
        if manual is None or not manual.varying:
            return zero
        return jax.lax.pcast(zero, tuple(manual.varying), to="varying")

    def hold() -> tuple[Any, Any]:
        return jax.tree.map(zeros, shapes), state

    return jax.lax.cond(run, update, hold)
