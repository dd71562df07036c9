"""Smoothing of the weights of a balancer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._gram import combine
from kdopt._loss_weights import check_weighs_grads, loss_weights
from kdopt._present import clear_values, present_mask
from kdopt._typing import Balancer, PresentLike, Weights
from kdopt.wrappers._inner import any_per_loss_tuple


class EmaState(NamedTuple):
    """State of :func:`ema`.

    Attributes:
        loss_weights: Smoothed weights, ``[k]``; that of an absent loss does not change.
        count: Number of steps that changed them, int32.
        inner: State of the balancer.
    """

    loss_weights: Weights
    count: jax.Array
    inner: Any


def ema(balancer: Balancer, decay: float | jax.Array = 0.9) -> Balancer:
    r"""Combines the gradients with an exponential average of the weights (CR-MOGM).

    .. math:: \bar w_t = \alpha \bar w_{t-1} + (1 - \alpha) \, w_t, \qquad
        u = \sum_i \bar w_{t,i} \, g_i

    with :math:`\bar w_1 = w_1`. Weights from small batches are noisy, and correlated
    with the gradients they weight; the average is less so.

    Args:
        balancer: A balancer that weights the gradients themselves; not a chain, not
            :func:`kdopt.dot`, not :func:`kdopt.db_mtl`.
        decay: :math:`\alpha` in [0, 1); 0 changes nothing.

    Returns:
        The transform; ``kdopt.loss_weights`` reads the smoothed weights.

    Raises:
        ValueError: If ``decay`` is outside [0, 1), or the balancer keeps no weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.ema(kdopt.min_norm(), decay=0.5)
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in [
        ...     (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])),
        ...     (jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])),
        ... ]:
        ...     _, state = tx.update(grads, state)
        >>> print(kdopt.loss_weights(state))
        [0.75 0.25]

    References:
        Zhou et al., `On the Convergence of Stochastic Multi-Objective Gradient
        Manipulation and Beyond <https://openreview.net/forum?id=ScwfQ7hdwyP>`_,
        NeurIPS 2022, Algorithm 1
    """
    if isinstance(decay, (int, float)) and not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}.")
    inner = optax.with_extra_args_support(balancer)

    def init_fn(params: optax.Params) -> EmaState:
        state: Any = inner.init(params)
        check_weighs_grads(state, "ema")
        weights = jnp.copy(loss_weights(state))
        return EmaState(weights, jnp.zeros((), jnp.int32), state)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EmaState]:
        grads = any_per_loss_tuple(updates, params, present)
        mask = present_mask(present, len(grads))
        inner_args = (grads, state.inner, params)
        new: Any = inner.update(*inner_args, present=mask, **extra_args)[1]
        fresh = loss_weights(new)
        alpha = jnp.where(state.count == 0, 0, jnp.asarray(decay, fresh.dtype))
        mixed = alpha * state.loss_weights + (1 - alpha) * fresh
        fine = jnp.asarray(True)
        if hasattr(new, "notfinite_count"):
            fine = new.notfinite_count == state.inner.notfinite_count
        moves = fine if mask is None else fine & mask
        weights = jnp.where(moves, mixed, state.loss_weights)
        count = state.count + fine.astype(jnp.int32)
        update = combine(grads, clear_values(weights, mask))
        return update, EmaState(weights, count, new)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
