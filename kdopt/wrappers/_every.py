"""Compute the weights every n steps and use them in between."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._gram import combine
from kdopt._typing import Balancer, Weights
from kdopt.wrappers._inner import any_per_loss_tuple, check_holds_weights


class EveryState(NamedTuple):
    """State of :func:`every`.

    Attributes:
        count: Number of steps, int32.
        inner: State of the balancer.
    """

    count: jax.Array
    inner: Any

    @property
    def loss_weights(self) -> Weights:
        """Weights of the last step, ``[k]``."""
        return self.inner.loss_weights


def every(n: int, balancer: Balancer) -> Balancer:
    r"""Lets a balancer compute its weights on steps 0, n, 2n, ... only.

    .. math:: u_t = \sum_i w_i^{(n \lfloor t / n \rfloor)} g_i

    In between neither the Gram matrix nor the weights are computed; the gradients are
    combined with the last ones.

    Args:
        n: Number of steps, at least 1.
        balancer: A balancer that yields weights; not a chain, not :func:`kdopt.dot`.

    Returns:
        The transform; ``kdopt.loss_weights`` reads the weights in use.

    Raises:
        ValueError: If ``n`` is not a positive int, or the balancer keeps no weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.every(2, kdopt.min_norm())
        >>> state = tx.init(jnp.zeros(2))
        >>> right, up = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> _, state = tx.update((right, 2 * up), state)
        >>> update, _ = tx.update((right, 100 * up), state)
        >>> print(update)
        [ 0.8 20. ]

    Notes:
        Under ``jax.vmap`` both branches run and nothing is saved.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a number of steps, at least 1, got {n!r}.")
    inner = optax.with_extra_args_support(balancer)

    def init_fn(params: optax.Params) -> EveryState:
        state = inner.init(params)
        check_holds_weights(state, "every")
        return EveryState(jnp.zeros((), jnp.int32), state)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EveryState]:
        grads = any_per_loss_tuple(updates, params)

        def compute() -> tuple[Any, Any]:
            return inner.update(grads, state.inner, params, **extra_args)

        def reuse() -> tuple[Any, Any]:
            return combine(grads, state.loss_weights), state.inner

        update, inner_state = jax.lax.cond(state.count % n == 0, compute, reuse)
        count = jnp.asarray(optax.safe_increment(state.count))
        return update, EveryState(count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
