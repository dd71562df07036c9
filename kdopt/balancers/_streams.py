"""Momentum in streams: one heavy-ball buffer for each loss."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads


class StreamsState(NamedTuple):
    """State of :func:`streams` and :func:`kdopt.dot`.

    Attributes:
        count: Number of steps, int32.
        traces: The K momentum buffers, each shaped like the parameters.
    """

    count: jax.Array
    traces: PerLossGrads


Reach = PerLossGrads | Callable[[optax.Params], PerLossGrads]
"""For each loss a tree of bools like params: does the loss depend on this leaf?"""


def streams(
    momenta: Sequence[optax.ScalarOrSchedule],
    *,
    dampening: float | jax.Array = 0.0,
    accumulator_dtype: Any = None,
    reach: Reach | None = None,
    solo_momentum: optax.ScalarOrSchedule | None = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Keeps one momentum buffer per loss and adds them up.

    .. math:: v_i \leftarrow (1 - d_t) \, g_i + m_i v_i, \qquad u = \sum_i v_i

    with :math:`d_0 = 0` and :math:`d_t = d` afterwards.

    Args:
        momenta: Coefficients :math:`m_i`, one per loss: numbers in [0, 1) or schedules.
        dampening: :math:`d`; the first step is not dampened, as in PyTorch's SGD.
        accumulator_dtype: Dtype of the buffers; by default that of the parameters.
        reach: Which parameters each loss reaches: a tuple of K trees of bools, or a
            function from params to it. A leaf that only one loss reaches moves with
            ``solo_momentum``. By default every loss reaches every leaf.
        solo_momentum: Momentum of leaves that one loss reaches; by default the mean of
            ``momenta``.
        axis_name: Mesh axis over which the *update* is averaged, inside
            ``jax.shard_map`` or ``jax.pmap``, for gradients that were not. The buffers
            stay local to each replica: everything is linear, so one all-reduce of one
            tree gives the same update as one per loss. Weight decay and clipping that
            need the averaged gradient must then come after. Gradients of one replica
            come from :func:`kdopt.value_and_grads` without ``axis_name``, inside
            ``jax.shard_map`` at ``jax.lax.pcast(params, axis_name, to="varying")``.

    Returns:
        A balancer of ``len(momenta)`` losses; follow it by the learning rate.

    Raises:
        ValueError: If there are no momenta, or a number is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.streams((0.5, 0.0, 0.9))
        >>> grads, state = (jnp.ones(1),) * 3, tx.init(jnp.zeros(1))
        >>> _, state = tx.update(grads, state)
        >>> update, _ = tx.update(grads, state)
        >>> print(update)
        [4.4]

    Notes:
        An element whose new momentum would not be finite keeps its old one; the update
        itself is not masked, so that ``optax.apply_if_finite`` behind it, or you, can
        see the fault. Equal momenta make this ``optax.trace`` on the summed gradient.
    """
    momenta = tuple(momenta)
    if not momenta:
        raise ValueError("momenta must hold one coefficient per loss, got none.")
    for momentum in (*momenta, solo_momentum):
        if isinstance(momentum, (int, float)) and not 0 <= momentum < 1:
            raise ValueError(
                f"A momentum must lie in [0, 1), got {momentum:.4g}: at 1 or more the "
                "buffer grows without bound."
            )
    if isinstance(dampening, (int, float)) and not 0 <= dampening <= 1:
        raise ValueError(f"dampening must lie in [0, 1], got {dampening}.")
    buffer_dtype = None if accumulator_dtype is None else jnp.dtype(accumulator_dtype)

    def init_fn(params: optax.Params) -> StreamsState:
        zeros = optax.tree.zeros_like(params, dtype=buffer_dtype)
        traces = tuple(jax.tree.map(jnp.copy, zeros) for _ in momenta)
        return StreamsState(jnp.zeros((), jnp.int32), traces)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StreamsState]:
        del extra_args
        grads = per_loss_tuple(updates, params, len(momenta))
        leaves = [jax.tree.leaves(tree) for tree in grads]
        old = [jax.tree.leaves(tree) for tree in state.traces]
        current = [_value(m, state.count) for m in momenta]
        solo = None if solo_momentum is None else _value(solo_momentum, state.count)
        factors = _leaf_momenta(current, solo, _masks(reach, params, grads))
        undamped = isinstance(dampening, (int, float)) and dampening == 0
        gain = None if undamped else jnp.where(state.count == 0, 1, 1 - dampening)

        combined, traces = [], [[] for _ in momenta]
        for n, parts in enumerate(zip(*leaves, strict=True)):
            moved = [
                _advance(g, old[i][n], factors[n][i], gain) for i, g in enumerate(parts)
            ]
            for trace, new, i in zip(traces, moved, range(len(moved)), strict=True):
                kept = jnp.where(jnp.isfinite(new), new, old[i][n].astype(new.dtype))
                trace.append(kept.astype(old[i][n].dtype))
            total = moved[0]
            for new in moved[1:]:
                total = total + new
            combined.append(total.astype(parts[0].dtype))

        structure = jax.tree.structure(grads[0])
        update = jax.tree.unflatten(structure, combined)
        if axis_name is not None:
            update = jax.lax.pmean(update, axis_name)
        new_traces = tuple(
            jax.tree.unflatten(jax.tree.structure(tree), trace)
            for tree, trace in zip(state.traces, traces, strict=True)
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        return update, StreamsState(count, new_traces)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _value(momentum: optax.ScalarOrSchedule, count: jax.Array) -> Any:
    return momentum(count) if callable(momentum) else momentum


def _masks(reach: Reach | None, params: Any, grads: PerLossGrads) -> list[list[bool]]:
    """For each leaf, for each loss: does the loss reach it?"""
    masks = reach(grads[0] if params is None else params) if callable(reach) else reach
    if masks is None:
        return [[True] * len(grads) for _ in jax.tree.leaves(grads[0])]
    if len(masks) != len(grads):
        raise ValueError(
            f"reach must hold one tree of bools per loss, {len(grads)} of them, got "
            f"{len(masks)}."
        )
    columns = [jax.tree.leaves(jax.tree.broadcast(mask, grads[0])) for mask in masks]
    return [[bool(flag) for flag in flags] for flags in zip(*columns, strict=True)]


def _leaf_momenta(
    momenta: list[Any], solo: Any, masks: list[list[bool]]
) -> list[list[Any]]:
    """Momentum of each leaf in each stream."""
    alone = sum(momenta) / len(momenta) if solo is None else solo
    return [[alone] * len(momenta) if sum(m) == 1 else momenta for m in masks]


def _advance(g: jax.Array, trace: jax.Array, momentum: Any, gain: Any) -> jax.Array:
    """One heavy-ball step of one leaf, in the wider of the two dtypes."""
    dtype = g.dtype if g.dtype == trace.dtype else accumulator_dtype(g, trace)
    g = g.astype(dtype)
    if gain is not None:
        g = g * jnp.asarray(gain, dtype)
    return g + jnp.asarray(momentum, dtype) * trace.astype(dtype)
