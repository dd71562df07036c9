"""Running averages of gradient diagnostics."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt import diagnostics
from kdopt._checks import loss_names
from kdopt._dtypes import accumulator_dtype
from kdopt._gram import gram
from kdopt._loss_weights import loss_weights
from kdopt._transform import check_num_losses, per_loss_tuple
from kdopt._typing import Balancer, PresentLike, Weights


class MonitorState(NamedTuple):
    """State of :func:`monitor`.

    Attributes:
        metrics: Averages by key, scalars; 0 before the first step.
        counts: Number of steps in each of them, int32.
        inner: State of the wrapped transform.
    """

    metrics: dict[str, jax.Array]
    counts: dict[str, jax.Array]
    inner: Any


def monitor(
    balancer: Balancer,
    *,
    num_losses: int | None = None,
    names: Sequence[str] | None = None,
    decay: float = 0.9,
    axis_name: str | None = None,
) -> Balancer:
    r"""Averages norms, cosines, conflicts and weights in the state.

    .. math:: \bar x_t = \bar x_{t-1} + a_t (x_t - \bar x_{t-1}), \qquad
        a_t = \frac{1 - \alpha}{1 - \alpha^t}

    The keys are those of :func:`kdopt.diagnostics.summary`; ``dominance_rate/i``, the
    share of steps on which gradient i is longer than that of the task; and
    ``dropped_rate/i``, the share of steps on which loss i had the weight 0. The average
    of ``conflict/i`` is likewise the share of steps with a conflict. The structure of
    the state never changes, so it works in ``jax.lax.scan``.

    Args:
        balancer: A balancer, or a chain that begins with one; its update is passed on.
        num_losses: K; by default that of ``names``, or two.
        names: K names, as for :func:`kdopt.diagnostics.summary`.
        decay: :math:`\alpha` in [0, 1); 0 keeps the last step only.
        axis_name: Mesh axis over which the gradients are sharded; see
            :func:`kdopt.gram`.

    Returns:
        The transform; read ``state.metrics``, or, anywhere in a chain,
        ``optax.tree.get(opt_state, "metrics")``. A metric that is not finite on a step,
        or concerns an absent loss, keeps its average.

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
    if num_losses is None:
        num_losses = 2 if names is None else len(names)
    names = loss_names(names, check_num_losses(num_losses))
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}.")
    inner = optax.with_extra_args_support(balancer)

    def measure(
        matrix: jax.Array, state: Any, present: PresentLike = None
    ) -> dict[str, jax.Array]:
        metrics = diagnostics.summary(
            matrix, _weights(state), names=names, present=present
        )
        rates = {}
        for name in names:
            if name != names[0]:
                ratio = metrics[f"dominance/{name}"]
                rates[f"dominance_rate/{name}"] = _where_known(ratio > 1, ratio)
            if f"weight/{name}" in metrics:
                weight = metrics[f"weight/{name}"]
                rates[f"dropped_rate/{name}"] = _where_known(weight == 0, weight)
        return metrics | rates

    def init_fn(params: optax.Params) -> MonitorState:
        state = inner.init(params)
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        keys = measure(jnp.eye(len(names), dtype=dtype), state)
        return MonitorState(
            metrics={key: jnp.zeros((), x.dtype) for key, x in keys.items()},
            counts={key: jnp.zeros((), jnp.int32) for key in keys},
            inner=state,
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MonitorState]:
        grads = per_loss_tuple(updates, params, len(names), present)
        update, inner_state = inner.update(
            grads, state.inner, params, present=present, **extra_args
        )
        matrix = jax.lax.stop_gradient(gram(grads, axis_name=axis_name))
        metrics = measure(matrix, inner_state, present)
        sound = jnp.all(jnp.isfinite(matrix))
        averages, counts = {}, {}
        for key, old in state.metrics.items():
            new = metrics[key].astype(old.dtype)
            fine = sound & jnp.isfinite(new)
            counts[key] = state.counts[key] + fine.astype(jnp.int32)
            steps = jnp.maximum(counts[key], 1).astype(old.dtype)
            share = (1 - decay) / (1 - decay**steps)
            averages[key] = jnp.where(fine, old + share * (new - old), old)
        return update, MonitorState(averages, counts, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where_known(event: jax.Array, metric: jax.Array) -> jax.Array:
    """Returns 1 if an event happens, NaN if the metric it is about is NaN."""
    return jnp.where(jnp.isnan(metric), metric, event.astype(metric.dtype))


def _weights(state: Any) -> Weights | None:
    """Returns the weights in a state, if it holds one set of them."""
    try:
        return loss_weights(state)
    except ValueError:
        return None
