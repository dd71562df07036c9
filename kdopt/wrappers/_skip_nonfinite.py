"""Leave a step out whose gradients or values are not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._typing import Balancer
from kdopt.wrappers._inner import any_per_loss_tuple, update_if


class SkipNonfiniteState(NamedTuple):
    """State of :func:`skip_nonfinite`.

    Attributes:
        consecutive: Number of faulty steps in a row, int32.
        skipped: Number of steps left out in all, int32.
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
    """Leaves steps out whose gradients or loss values are not finite.

    The update is then zero and the whole state, momenta and schedules included, stays
    as it was. It is ``optax.apply_if_finite`` for K gradients.

    Args:
        tx: A balancer, or better the whole chain that begins with one.
        max_consecutive: After so many faulty steps in a row give up and let them
            through, so that a run that is broken for good says so.
        axis_name: Mesh axis over which gradients are sharded or not yet averaged,
            inside ``jax.shard_map`` or ``jax.pmap``: a fault on one device makes all of
            them leave the step out.

    Returns:
        The transform; its state counts the steps.

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

    def init_fn(params: optax.Params) -> SkipNonfiniteState:
        zero = jnp.zeros((), jnp.int32)
        return SkipNonfiniteState(zero, jnp.copy(zero), inner.init(params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        grads = any_per_loss_tuple(updates, params)
        seen = jax.tree.leaves((grads, extra_args.get("values", ())))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in seen]))
        if axis_name is not None:
            finite = jax.lax.psum(jnp.where(finite, 0, 1), axis_name) == 0
        consecutive = jnp.where(finite, 0, state.consecutive + 1)
        run = finite | (consecutive > max_consecutive)
        update, inner_state = update_if(
            run,
            lambda: inner.update(grads, state.inner, params, **extra_args),
            state.inner,
        )
        skipped = state.skipped + jnp.where(run, 0, 1).astype(jnp.int32)
        return update, SkipNonfiniteState(consecutive, skipped, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
