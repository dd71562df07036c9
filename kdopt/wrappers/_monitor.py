"""Keep running averages of what the gradients do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt import diagnostics
from kdopt._dtypes import accumulator_dtype
from kdopt._gram import gram
from kdopt._transform import loss_weights, per_loss_tuple
from kdopt._typing import Balancer, Weights


class MonitorState(NamedTuple):
    """State of :func:`monitor`.

    Attributes:
        metrics: Averages by key, scalars.
        count: Number of steps in them, int32.
        inner: State of the wrapped transform.
    """

    metrics: dict[str, jax.Array]
    count: jax.Array
    inner: Any


def monitor(
    balancer: Balancer,
    *,
    names: Sequence[str] = ("task", "distill"),
    decay: float = 0.9,
    axis_name: str | None = None,
) -> Balancer:
    r"""Averages norms, cosines, conflicts and weights in the state.

    .. math:: \bar x_t = \bar x_{t-1} + a_t (x_t - \bar x_{t-1}), \qquad
        a_t = \frac{1 - \alpha}{1 - \alpha^t}

    The keys are those of :func:`kdopt.diagnostics.summary`, and ``dominance_rate/i``,
    the share of steps on which gradient i is longer than that of the task; the average
    of ``conflict/i`` is likewise the share of steps with a conflict. The structure of
    the state never changes, so that it passes ``jax.lax.scan``.

    Args:
        balancer: A balancer, or a chain that begins with one; its update is passed on.
        names: K names, the task first.
        decay: :math:`\alpha` in [0, 1); 0 keeps the last step, without an average.
        axis_name: Mesh axis over which the gradients are sharded; see
            :func:`kdopt.gram`.

    Returns:
        The transform; read ``state.metrics``, or anywhere in a chain
        ``optax.tree.get(opt_state, "metrics")``. A step with a metric that is not
        finite is left out.

    Raises:
        ValueError: If ``decay`` is outside [0, 1), or there are not K names.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.monitor(kdopt.min_norm(), decay=0.5)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> _, state = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> for key in ("cosine/distill", "dominance_rate/distill", "weight/task"):
        ...     print(f"{key:23} {state.metrics[key]:7.4f}")
        cosine/distill          -0.8412
        dominance_rate/distill   1.0000
        weight/task              0.6000
    """
    names = tuple(names)
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}.")
    inner = optax.with_extra_args_support(balancer)

    def measure(matrix: jax.Array, state: Any) -> dict[str, jax.Array]:
        metrics = diagnostics.summary(matrix, _weights(state), names=names)
        longer = jnp.diagonal(matrix) > matrix[0, 0]
        rates = {
            f"dominance_rate/{name}": longer[i].astype(matrix.dtype)
            for i, name in enumerate(names)
            if i
        }
        return metrics | rates

    def init_fn(params: optax.Params) -> MonitorState:
        state = inner.init(params)
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        shapes = measure(jnp.eye(len(names), dtype=dtype), state)
        zeros = jax.tree.map(jnp.zeros_like, shapes)
        return MonitorState(zeros, jnp.zeros((), jnp.int32), state)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MonitorState]:
        grads = per_loss_tuple(updates, params, len(names))
        update, inner_state = inner.update(grads, state.inner, params, **extra_args)
        matrix = jax.lax.stop_gradient(gram(grads, axis_name=axis_name))
        metrics = measure(matrix, inner_state)
        fine = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
        count = state.count + fine.astype(jnp.int32)
        steps = jnp.maximum(count, 1).astype(jnp.float32)

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            share = ((1 - decay) / (1 - decay**steps)).astype(old.dtype)
            moved = old + share * (new.astype(old.dtype) - old)
            return jnp.where(fine, moved, old)

        averages = jax.tree.map(average, state.metrics, metrics)
        return update, MonitorState(averages, count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _weights(state: Any) -> Weights | None:
    """The weights in a state, if it holds one set of them."""
    try:
        return loss_weights(state)
    except ValueError:
        return None
