"""Momentum in streams: one heavy-ball buffer for each loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt import _dtypes
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads, PresentLike
from kdopt.balancers._elements import hold_apart
from kdopt.balancers._reach import (
    Reach,
    check_momenta,
    leaf_momenta,
)


class StreamsState(NamedTuple):
    """State of :func:`streams` and :func:`kdopt.dot`.

    Attributes:
        count: Number of steps, int32.
        traces: The K momentum buffers, each shaped like the parameters.
    """

    count: jax.Array
    traces: PerLossGrads


def streams(
    momenta: Sequence[optax.ScalarOrSchedule],
    *,
    dampening: float | jax.Array | Sequence[float] = 0.0,
    nesterov: bool | Sequence[bool] = False,
    normalize: bool = False,
    accumulator_dtype: Any = None,
    reach: Reach | None = None,
    solo_momentum: optax.ScalarOrSchedule | None = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Keeps one momentum buffer per loss and adds them up.

    .. math:: v_i \leftarrow (1 - d_{i,t}) \, g_i + m_i v_i, \qquad u = \sum_i v_i

    with :math:`d_{i,0} = 0` and :math:`d_{i,t} = d_i` afterwards. DeepKD has three of
    them, for task, target-class and non-target-class distillation, with momenta
    :math:`\mu + \Delta`, :math:`\mu - \Delta` and :math:`\mu + \Delta`.

    Args:
        momenta: Coefficients :math:`m_i`, one per loss: numbers in [0, 1) or schedules.
        dampening: :math:`d_i`, a number or one per loss; the first step is not
            dampened, as in PyTorch's SGD.
        nesterov: Whether a stream looks ahead, a bool or one per loss: it then
            contributes :math:`g_i + m_i v_i` with the new :math:`v_i`.
        normalize: Whether :math:`g_i` enters as :math:`(1 - m_i) g_i`, from the first
            step on. A constant gradient then has gain 1 in every stream: the momenta
            set only how long a gradient is remembered.
        accumulator_dtype: Dtype of the buffers; by default that of the parameters.
        reach: Which parameters each loss reaches: a tuple of K trees of bools, or a
            function from params to it; :func:`kdopt.reachable` finds it. A leaf that
            only one loss reaches uses ``solo_momentum``. By default every loss reaches
            every leaf.
        solo_momentum: Momentum of leaves that only one loss reaches; by default the
            mean of ``momenta``.
        axis_name: Mesh axis over which the *update* is averaged, inside
            ``jax.shard_map`` or ``jax.pmap``, for gradients that were not averaged. The
            buffers stay local to each replica: everything is linear, so one all-reduce
            of one tree gives the same update as one per loss. Weight decay and clipping
            that need the averaged gradient must then come after it. Gradients of one
            replica come from :func:`kdopt.value_and_grads` without ``axis_name``,
            inside ``jax.shard_map`` at
            ``jax.lax.pcast(params, axis_name, to="varying")``.

    Returns:
        A balancer of ``len(momenta)`` losses; follow it by the learning rate.

    Raises:
        ValueError: If there are no momenta, a number is outside [0, 1), or a stream is
            dampened and Nesterov or normalised.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.streams((0.5, 0.0, 0.9))
        >>> grads, state = (jnp.ones(1),) * 3, tx.init(jnp.zeros(1))
        >>> _, state = tx.update(grads, state)
        >>> update, _ = tx.update(grads, state)
        >>> print(update)
        [4.4]

    References:
        Huang et al., `DeepKD <https://arxiv.org/abs/2505.15133>`_, NeurIPS 2025, Eq. 7

    Notes:
        An element whose new momentum would not be finite keeps its old one, and the
        update is NaN there, so that ``optax.apply_if_finite`` after it, or you, can see
        the fault. Equal momenta make this ``optax.trace`` on the summed gradient.

        The authors' code of DeepKD (github.com/haiduo/DeepKD, afb5964) moves the task
        buffer with :math:`\mu - \Delta`, unlike their Eq. 7.
    """
    momenta = tuple(momenta)
    if not momenta:
        raise ValueError("momenta must hold one coefficient per loss, got none.")
    check_momenta(*momenta, solo_momentum)
    damped = _per_stream(dampening, len(momenta), "dampening")
    ahead = _per_stream(nesterov, len(momenta), "nesterov")
    for d, look in zip(damped, ahead, strict=True):
        if not isinstance(d, (int, float)):
            continue  # injected, so known at run time only
        if not 0 <= d <= 1:
            raise ValueError(f"dampening must lie in [0, 1], got {d}.")
        if d and (look or normalize):
            raise ValueError(
                "dampening cannot be combined with nesterov or normalize, which set "
                f"the size of the gradient themselves; got dampening={d}."
            )
    buffer_dtype = None if accumulator_dtype is None else jnp.dtype(accumulator_dtype)

    def init_fn(params: optax.Params) -> StreamsState:
        zeros = optax.tree.zeros_like(params, dtype=buffer_dtype)
        traces = tuple(jax.tree.map(jnp.copy, zeros) for _ in momenta)
        return StreamsState(jnp.zeros((), jnp.int32), traces)

    def gain(momentum: Any, d: Any, count: jax.Array) -> Any:
        if normalize:
            return 1 - momentum
        undamped = isinstance(d, (int, float)) and d == 0
        return None if undamped else jnp.where(count == 0, 1.0, 1.0 - d)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StreamsState]:
        del extra_args
        grads = per_loss_tuple(updates, params, len(momenta), present)
        factors = leaf_momenta(
            momenta,
            solo_momentum,
            reach,
            count=state.count,
            grads=grads,
            params=params,
        )
        leaves = zip(*map(jax.tree.leaves, grads), strict=True)
        old = zip(*map(jax.tree.leaves, state.traces), strict=True)
        combined, traces = [], []
        for parts, buffers, ms in zip(leaves, old, factors, strict=True):
            steps = [
                _advance(g, v, m, gain(m, d, state.count), look)
                for g, v, m, d, look in zip(
                    parts, buffers, ms, damped, ahead, strict=True
                )
            ]
            outs, fresh = zip(*steps, strict=True)
            new, total = hold_apart(fresh, buffers, outs, parts[0].dtype)
            combined.append(total)
            traces.append(new)

        update = jax.tree.unflatten(jax.tree.structure(grads[0]), combined)
        if axis_name is not None:
            update = jax.lax.pmean(update, axis_name)
        structure = jax.tree.structure(state.traces[0])
        columns = zip(*traces, strict=True) if traces else [()] * len(momenta)
        new_traces = tuple(jax.tree.unflatten(structure, column) for column in columns)
        count = jnp.asarray(optax.safe_increment(state.count))
        return update, StreamsState(count, new_traces)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _per_stream(option: Any, num_streams: int, name: str) -> tuple:
    """Expands an option to one setting per stream."""
    many = tuple(option) if isinstance(option, Sequence) else (option,) * num_streams
    if len(many) != num_streams:
        raise ValueError(
            f"{name} must be one setting or {num_streams} of them, got {len(many)}."
        )
    return many


def _advance(
    g: jax.Array, trace: jax.Array, momentum: Any, gain: Any, nesterov: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns what one leaf of one stream contributes, and its new buffer."""
    dtype = g.dtype if g.dtype == trace.dtype else _dtypes.accumulator_dtype(g, trace)
    g, old, m = g.astype(dtype), trace.astype(dtype), jnp.asarray(momentum, dtype)
    if gain is not None:
        g = g * jnp.asarray(gain, dtype)
    new = g + m * old
    return (g + m * new if nesterov else new), new
