"""A guard that keeps the final update of a chain from raising a loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._cone import shortest_correction
from kdopt._dtypes import accumulator_dtype, at_least_float32
from kdopt._gram import combine, gram
from kdopt._linalg import dot
from kdopt._transform import check_num_losses, check_state, count_unless, per_loss_tuple
from kdopt._typing import Balancer, PresentLike, Weights
from kdopt.diagnostics import cosines


class GuardState(NamedTuple):
    """State of :func:`guard`.

    Attributes:
        cosines: Cosine of each gradient with the descent of the chain's own update,
            before the guard, at the last step, ``[k]``; 0 where one of them is zero.
        changes: Predicted change of each loss by the update that was returned, ``[k]``.
        rises: Number of steps on which the chain's own update would have raised each
            loss, ``[k]``, int32.
        acted: Number of steps on which the guard changed the update, int32.
        notfinite_count: Number of steps, int32, whose gradients or update were not
            finite; their update is that of the chain.
        inner: State of the wrapped transform.
    """

    cosines: Weights
    changes: Weights
    rises: jax.Array
    acted: jax.Array
    notfinite_count: jax.Array
    inner: Any


def guard(
    tx: optax.GradientTransformation,
    *,
    num_losses: int = 2,
    act: bool | jax.Array = True,
    axis_name: str | None = None,
) -> Balancer:
    r"""Keeps the final update of a chain from raising a loss, to first order.

    The guarantees of a balancer are about its combination of the gradients. What moves
    the parameters is something else: momentum adds gradients of earlier steps, Adam
    scales each element, weight decay adds the parameters. With :math:`d` minus the
    final update the guard applies

    .. math::
        d^* = \arg\min_{d^*} \lVert d^* - d \rVert^2 \quad \text{s.t.} \quad
        \langle g_i, d^* \rangle \ge 0, \qquad
        d^* = d + J^\top \mu, \quad
        \mu = \arg\min_{\mu \ge 0} \tfrac12 \mu^\top G \mu + \mu^\top J d

    *Why no loss rises.* The problem for :math:`\mu` is bounded, since :math:`d^* = 0`
    is allowed, and its optimality conditions are :math:`G \mu + J d = J d^* \ge 0` and
    :math:`\mu^\top J d^* = 0`. The first says that no loss rises. As the allowed
    directions form a cone that contains :math:`d^*` itself,
    :math:`\langle d^* - d, d^* \rangle = 0` and
    :math:`\lVert d^* \rVert \le \lVert d \rVert`: the guarded update is never longer,
    and equals the update where that raises no loss.

    It needs no backward pass, only one pass over the K gradients and the update for
    their inner products, and one to correct. The transforms inside are not affected:
    Adam's moments are those of the balanced gradient.

    Args:
        tx: The whole chain from K gradients to the update that is *added* to the
            parameters: balancer, optimiser, learning rate. What must not be guarded
            goes after it, ``optax.chain(kdopt.guard(...), decay)``.
        num_losses: K.
        act: Whether to correct the update; False only measures and counts. It may be a
            traced bool.
        axis_name: Mesh axis over which gradients and update are sharded, inside
            ``jax.shard_map``.

    Returns:
        The transform; a :class:`kdopt.wrappers.GuardState` says how often it acted and
        which losses would have risen. A loss that is absent, or whose gradient is zero,
        sets no constraint. Changes below the rounding error of the inner product pass.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> sgd = optax.sgd(0.1, momentum=0.9)
        >>> tx = kdopt.guard(optax.chain(kdopt.min_norm(), sgd))
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> turned = (jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.5]))
        >>> for grads in ((jnp.ones(2), jnp.ones(2)), turned):
        ...     updates, state = tx.update(grads, state, params)
        >>> print("{:.4f} {:.4f}".format(*updates))
        -0.0646 -0.1292
        >>> print("{:.4f} {:.4f}".format(*state.cosines), state.acted)
        0.6452 -0.2354 1

    References:
        Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
        <https://arxiv.org/abs/1706.08840>`_, NeurIPS 2017, Eq. 11 (the same projection,
        of a gradient)
    """
    k = check_num_losses(num_losses)
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: optax.Params) -> GuardState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return GuardState(
            cosines=jnp.zeros(k, dtype),
            changes=jnp.zeros(k, dtype),
            rises=jnp.zeros(k, jnp.int32),
            acted=jnp.zeros((), jnp.int32),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GuardState]:
        check_state(state.cosines, k)
        grads = per_loss_tuple(updates, params, k, present)
        update, inner_state = inner.update(
            grads, state.inner, params, present=present, **extra_args
        )
        rows = jax.tree.map(at_least_float32, (*grads, update))
        matrix = gram(rows, axis_name=axis_name).astype(state.cosines.dtype)
        matrix = jax.lax.stop_gradient(matrix)
        own, changes = matrix[:k, :k], matrix[:k, k]
        angles = -cosines(matrix)[:k, k]
        rises = angles < -16 * jnp.finfo(matrix.dtype).eps
        multipliers = shortest_correction(own, changes)
        finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(multipliers))
        acts = jnp.any(rises) & finite & act
        weights = jnp.concatenate([jnp.ones(1, matrix.dtype), -multipliers])
        corrected = combine((update, *grads), weights)
        guarded = jax.tree.map(
            lambda new, old: jnp.where(acts, new, old), corrected, update
        )
        after = changes - jnp.where(acts, dot(own, multipliers), 0)
        return guarded, GuardState(
            cosines=jnp.where(finite, angles, state.cosines),
            changes=jnp.where(finite, after, state.changes),
            rises=state.rises + (rises & finite).astype(jnp.int32),
            acted=state.acted + acts.astype(jnp.int32),
            notfinite_count=count_unless(finite, state.notfinite_count),
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
