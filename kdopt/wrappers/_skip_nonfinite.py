"""Skipping of steps whose gradients, values or update are not finite."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import hold_unless, values_array
from kdopt._typing import Balancer, PresentLike
from kdopt.wrappers._inner import any_per_loss_tuple, update_if


class SkipNonfiniteState(NamedTuple):
    """State of :func:`skip_nonfinite`.

    Attributes:
        consecutive: Number of consecutive faulty steps, int32.
        skipped: Total number of skipped steps, int32.
        inner: State of the wrapped transform.
    """

    consecutive: jax.Array
    skipped: jax.Array
    inner: Any


def skip_nonfinite(
    tx: optax.GradientTransformation,
    max_consecutive: int,
    *,
    axis_name: str | None = None,
) -> Balancer:
    """Skips steps whose gradients, loss values or update are not finite.

    The update is then zero and the whole state, momenta and schedules included, stays
    as it was. It is ``optax.apply_if_finite`` for K gradients.

    Args:
        tx: A balancer, or better the whole chain that begins with one.
        max_consecutive: Number of consecutive steps to skip before letting them
            through, so that a run that is permanently broken shows it.
        axis_name: Mesh axis over which gradients are sharded or not yet averaged,
            inside ``jax.shard_map`` or ``jax.pmap``: a fault on one device makes all of
            them skip the step.

    Returns:
        The transform; its state counts the skipped steps.

    Raises:
        ValueError: If ``max_consecutive`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = kdopt.skip_nonfinite(
        ...     optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.1)), 5
        ... )
        >>> params = jnp.zeros(2)
        >>> bad = jnp.array([jnp.nan, 1.0])
        >>> updates, state = tx.update((bad, bad), tx.init(params), params)
        >>> print(updates, state.skipped)
        [0. 0.] 1
    """
    if max_consecutive < 0:
        raise ValueError(
            f"max_consecutive must be at least 0, got {max_consecutive}; 0 lets every "
            "step through."
        )
    inner = optax.with_extra_args_support(tx)

    def is_finite(tree: Any) -> jax.Array:
        leaves = jax.tree.leaves(tree)
        return functools.reduce(
            jnp.logical_and, (jnp.all(jnp.isfinite(x)) for x in leaves), jnp.array(True)
        )

    def everywhere(flag: jax.Array) -> jax.Array:
        if axis_name is None:
            return flag
        return jax.lax.psum(jnp.where(flag, 0, 1), axis_name) == 0

    def init_fn(params: optax.Params) -> SkipNonfiniteState:
        zero = jnp.zeros((), jnp.int32)
        return SkipNonfiniteState(zero, jnp.copy(zero), inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        grads = any_per_loss_tuple(updates, params, present)
        seen = ()
        if values is not None:
            dtype = accumulator_dtype(*jax.tree.leaves(grads))
            seen = values_array(values, len(grads), dtype, present)
            extra_args["values"] = values
        fed = everywhere(is_finite((grads, seen)))
        give_up = state.consecutive >= max_consecutive

        def run() -> tuple[Any, Any]:
            update, new = inner.update(
                grads, state.inner, params, present=present, **extra_args
            )
            # Finite gradients may still overflow on the way to the update.
            fine = everywhere(is_finite(update))
            zeros = jax.tree.map(jnp.zeros_like, update)
            update, new = hold_unless(
                fine | give_up, (update, new), (zeros, state.inner)
            )
            return (update, fine), new

        (update, fine), inner_state = update_if(fed | give_up, run, state.inner)
        fine &= fed
        done = fine | give_up
        return update, SkipNonfiniteState(
            consecutive=jnp.where(fine, 0, state.consecutive + 1),
            skipped=state.skipped + jnp.where(done, 0, 1).astype(jnp.int32),
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
