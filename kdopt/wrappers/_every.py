"""Weights computed every n steps and reused in between."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdopt._gram import combine
from kdopt._loss_weights import check_weighs_grads, loss_weights
from kdopt._present import present_mask
from kdopt._typing import Balancer, PresentLike, Weights
from kdopt.wrappers._inner import any_per_loss_tuple


class EveryState(NamedTuple):
    """State of :func:`every`.

    Attributes:
        loss_weights: Weights in use, ``[k]``. A loss that was absent when they were
            computed keeps its previous weight.
        count: Number of steps, int32.
        inner: State of the balancer.
    """

    loss_weights: Weights
    count: jax.Array
    inner: Any


def every(balancer: Balancer, n: int) -> Balancer:
    r"""Lets a balancer compute its weights only on steps 0, n, 2n and so on.

    .. math:: u_t = \sum_i w_i^{(n \lfloor t / n \rfloor)} g_i

    In between neither the Gram matrix nor the weights are computed; the gradients are
    combined with the last ones.

    Args:
        balancer: A balancer that weights the gradients themselves; not a chain, not
            :func:`kdopt.dot`, not :func:`kdopt.db_mtl`.
        n: Number of steps, at least 1.

    Returns:
        The transform; ``kdopt.loss_weights`` reads the weights in use.

    Raises:
        ValueError: If ``n`` is not a positive int, or the balancer keeps no weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.every(kdopt.min_norm(), 2)
        >>> state = tx.init(jnp.zeros(2))
        >>> right, up = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> _, state = tx.update((right, 2 * up), state)
        >>> update, _ = tx.update((right, 100 * up), state)
        >>> print(update)
        [ 0.8 20. ]

    Notes:
        Under ``jax.vmap`` both branches run, so nothing is saved.
    """
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n must be a number of steps, at least 1, got {n!r}.")
    inner = optax.with_extra_args_support(balancer)

    def init_fn(params: optax.Params) -> EveryState:
        state = inner.init(params)
        check_weighs_grads(state, "every")
        weights = jnp.copy(loss_weights(state))
        return EveryState(weights, jnp.zeros((), jnp.int32), state)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EveryState]:
        grads = any_per_loss_tuple(updates, params, present)
        mask = present_mask(present, len(grads))

        def compute() -> tuple[Weights, Any]:
            new = inner.update(grads, state.inner, params, present=mask, **extra_args)[
                1
            ]
            return loss_weights(new), new

        def reuse() -> tuple[Weights, Any]:
            return state.loss_weights, state.inner

        fresh, inner_state = jax.lax.cond(state.count % n == 0, compute, reuse)
        weights = fresh if mask is None else jnp.where(mask, fresh, state.loss_weights)
        count = jnp.asarray(optax.safe_increment(state.count))
        return combine(grads, weights), EveryState(weights, count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
