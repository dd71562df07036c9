"""ExcessMTL: more weight for the losses that are furthest from their optimum."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._checks import check_range
from kdopt._dtypes import accumulator_dtype, wide_zeros
from kdopt._gram import combine
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses, count_unless, hold_unless, per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads, PresentLike, Weights


class ExcessMtlState(NamedTuple):
    """State of :func:`excess_mtl`.

    Attributes:
        squares: Sums of the squared gradients of each loss, K trees like params.
        first_risks: The first excess risk of each loss that was not zero, ``[k]``;
            zero, or NaN before the first step, where there is none yet.
        log_weights: Logarithms of the weights, ``[k]``: a weight that has underflowed
            can come back.
        loss_weights: Weights of the last step, ``[k]``.
        notfinite_count: Number of skipped steps, int32, whose gradients were not
            finite.
    """

    squares: PerLossGrads
    first_risks: Weights
    log_weights: Weights
    loss_weights: Weights
    notfinite_count: jax.Array


def excess_mtl(
    *,
    num_losses: int = 2,
    learning_rate: float | jax.Array = 0.01,
    eps: float | jax.Array = 1e-7,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by estimated excess risks (ExcessMTL).

    With squares, roots and quotients taken element by element:

    .. math::
        S_i \leftarrow S_i + g_i^2, \qquad
        R_i = \Big\langle g_i, \frac{g_i}{\sqrt{S_i + \varepsilon}} \Big\rangle, \qquad
        w_i \propto w_i \exp\Big( \eta \frac{R_i}{R_i^{(0)}} \Big)

    A loss with label noise stays large at its optimum, but its excess risk vanishes:
    unlike methods that use the values, this one does not chase it.

    It makes two passes over the gradients, the first also over the K sums of squares.

    Args:
        num_losses: K.
        learning_rate: :math:`\eta`.
        eps: :math:`\varepsilon`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer. Weights are positive and sum to one; they are equal at the first
        step. A loss whose gradient is zero keeps its share.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.excess_mtl(learning_rate=1.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for scale in (1.0, 0.1):
        ...     grads = jnp.array([1.0]), jnp.array([scale])
        ...     _, state = tx.update(grads, state)
        >>> print("{:.4f} {:.4f}".format(*state.loss_weights))
        0.6676 0.3324

    References:
        He et al., `Robust Multi-Task Learning with Excess Risks
        <https://arxiv.org/abs/2402.02009>`_, ICML 2024, Eq. 6-9

    Notes:
        The baseline :math:`R^{(0)}` is the first risk that is not zero. As on the first
        call of LibMTL, the step that sets it does not move the weights, whose sum is K
        there.
    """
    k = check_num_losses(num_losses)
    check_range("learning_rate", learning_rate, 0.0)
    check_range("eps", eps, 0.0, open_minimum=True)

    def init_fn(params: optax.Params) -> ExcessMtlState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return ExcessMtlState(
            squares=tuple(wide_zeros(params) for _ in range(k)),
            first_risks=jnp.full(k, jnp.nan, dtype),
            log_weights=jnp.full(k, -math.log(k), dtype),
            loss_weights=jnp.full(k, 1 / k, dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ExcessMtlState]:
        del extra_args
        grads = per_loss_tuple(updates, params, k, present)
        dtype = state.loss_weights.dtype

        def add(square: jax.Array, grad: jax.Array) -> jax.Array:
            return square + grad.astype(square.dtype) ** 2

        def risk(square: jax.Array, grad: jax.Array) -> jax.Array:
            floor = jnp.asarray(eps, square.dtype)
            wide = grad.astype(square.dtype)
            return jnp.sum(wide**2 / jnp.sqrt(square + floor)).astype(dtype)

        squares = tuple(
            jax.tree.map(add, s, g) for s, g in zip(state.squares, grads, strict=True)
        )
        risks = jnp.stack(
            [
                functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(risk, s, g)))
                for s, g in zip(squares, grads, strict=True)
            ]
        )
        if axis_name is not None:
            risks = jax.lax.psum(risks, axis_name)
        known = state.first_risks > 0
        first = jnp.where(known, state.first_risks, risks)
        relative = risks / jnp.maximum(first, jnp.asarray(eps, dtype))
        gain = jnp.asarray(learning_rate, dtype) * relative
        logs = _multiply(state.log_weights, gain, known & (risks > 0))
        finite = jnp.all(jnp.isfinite(risks)) & jnp.all(jnp.isfinite(logs))
        squares, first, logs = hold_unless(
            finite,
            (squares, first, logs),
            (state.squares, state.first_risks, state.log_weights),
        )
        weights = clear_values(jnp.exp(logs), present_mask(present, k))
        missed = count_unless(finite, state.notfinite_count)
        new = ExcessMtlState(squares, first, logs, weights, missed)
        return combine(grads, weights), new

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _multiply(logs: Weights, gain: Weights, active: jax.Array) -> Weights:
    """Multiplies the weights that are active by exp(gain); their sum stays one.

    The others keep their share: a loss without a gradient, or at its first step, is
    neither favoured nor penalised.
    """
    total = jax.nn.logsumexp

    before = jnp.where(active, logs, -jnp.inf)
    after = before + jnp.where(active, gain, 0)
    change = total(before) - total(after)
    moved = jnp.where(active, logs + gain + change, logs)
    moved = jnp.where(jnp.any(active), moved, logs)
    return moved - total(moved)
