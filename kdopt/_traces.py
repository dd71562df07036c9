"""Balancers that weight a running mean of each gradient instead of the gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype, wide_zeros
from kdopt._gram import combine, gram
from kdopt._present import clear_values, present_mask
from kdopt._simplex import leave_out
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    hold_unless,
    per_loss_tuple,
    start_state,
    values_array,
)
from kdopt._typing import Balancer, PerLossGrads, PresentLike, Values, Weights


class TracesState(NamedTuple):
    """State of a balancer that weights running means of the gradients.

    Attributes:
        count: Number of finite steps, int32.
        traces: K running means, each shaped like the parameters, in at least float32.
        loss_weights: Weights of the running means at the last step, ``[k]``.
        notfinite_count: Number of skipped steps, int32: those whose gradients, values
            or weights were not finite.
        inner: State of the method itself; ``()`` if none.
    """

    count: jax.Array
    traces: PerLossGrads
    loss_weights: Weights
    notfinite_count: jax.Array
    inner: Any


def from_traces(
    weights_fn: Callable[..., Any],
    rate_fn: Callable[[jax.Array], jax.Array],
    *,
    num_losses: int,
    scales_fn: Callable[[Values], tuple[Weights, jax.Array]] | None = None,
    initial_state: Any = (),
    axis_name: str | None = None,
) -> Balancer:
    r"""Builds a balancer that combines running means of the gradients.

    .. math::
        m_i \leftarrow m_i + r_t (c_i g_i - m_i), \qquad u = \sum_i w_i m_i

    Two passes over gradients and means: one for the Gram matrix of the new means, one
    to write them and their combination. A step that is not finite keeps the old means
    and reuses the weights; gradients that are not finite show in its update.

    Args:
        weights_fn: ``(gram of the means, count, inner) -> (weights, inner)``.
        rate_fn: From the step number, which starts at 1, to :math:`r_t`.
        num_losses: K.
        scales_fn: From the values ``[k]`` to :math:`c_i` and which losses are present,
            ``[k]`` each; then ``update`` needs ``values``. The mean of an absent loss
            stays as it is and gets no weight.
        initial_state: Initial state of the method; floats take the dtype of the
            weights.
        axis_name: Mesh axis over which the gradients are sharded.
    """
    k = check_num_losses(num_losses)

    def init_fn(params: optax.Params) -> TracesState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return TracesState(
            count=jnp.zeros((), jnp.int32),
            traces=tuple(wide_zeros(params) for _ in range(k)),
            loss_weights=jnp.full(k, 1 / k, dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=start_state(initial_state, dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TracesState]:
        del extra_args
        check_state(state.loss_weights, k)
        grads = per_loss_tuple(updates, params, k, present)
        mask = present_mask(present, k)
        dtype = state.loss_weights.dtype
        count = jnp.asarray(optax.safe_increment(state.count))
        # The mean of an absent loss stays as it is.
        rates = clear_values(jnp.full(k, rate_fn(count.astype(dtype)), dtype), mask)
        scales, finite = jnp.ones(k, dtype), jnp.ones((), bool)
        counts = jnp.ones(k, bool) if mask is None else mask
        if scales_fn is not None:
            losses = values_array(values, k, dtype, present)
            scales, here = scales_fn(losses)
            counts &= here
            finite = jnp.all(jnp.isfinite(losses)) & jnp.all(jnp.isfinite(scales))
            # Bad values with good gradients: the old means give a sound update.
            rates = jnp.where(finite & here, rates, 0)
            scales = jnp.where(finite, scales, 1)

        def move(i: int, trace: jax.Array, grad: jax.Array) -> jax.Array:
            # The two factors apart: their product may overflow where grad is small.
            goal = grad.astype(trace.dtype) * scales[i].astype(trace.dtype)
            return trace + rates[i].astype(trace.dtype) * (goal - trace)

        traces = tuple(
            jax.tree.map(lambda m, g, i=i: move(i, m, g), state.traces[i], grads[i])
            for i in range(k)
        )
        matrix = jax.lax.stop_gradient(gram(traces, axis_name=axis_name)).astype(dtype)
        weights, inner = weights_fn(
            leave_out(matrix, counts), count.astype(dtype), state.inner
        )
        weights = jnp.where(counts, weights, 0)
        finite &= jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(weights))
        weights = jnp.where(finite, weights, state.loss_weights)
        mixed = combine(traces, weights)
        update = jax.tree.map(lambda u, g: u.astype(g.dtype), mixed, grads[0])
        count, traces, inner = hold_unless(
            finite, (count, traces, inner), (state.count, state.traces, state.inner)
        )
        missed = count_unless(finite, state.notfinite_count)
        return update, TracesState(count, traces, weights, missed, inner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
