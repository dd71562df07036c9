"""The engine of FAMO: logits under a softmax that follow the fall of the log-losses."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._linalg import dot
from kdopt._transform import check_num_losses, hold_unless, values_array
from kdopt._typing import Scalarizer, Values, Weights
from kdopt.scalarizers._values import given_values

Signal = Literal["next", "same_batch", "gram", "literal"]


class LogSoftmaxState(NamedTuple):
    r"""State of :func:`kdopt.famo` and :func:`kdopt.dto_kd_amortized`.

    Attributes:
        logits: :math:`\xi`, ``[k]``; the trade-off weights are their softmax.
        log_gaps: :math:`\log D` of the last step, ``[k]``; NaN before the first.
        min_losses: Lower bounds of the losses, ``[k]``.
        eps: Floor of a loss minus its bound.
        notfinite_count: Number of steps, int32, that were left out because a value was
            not finite.
        inner: State of the optimiser of the logits.
    """

    logits: jax.Array
    log_gaps: jax.Array
    min_losses: jax.Array
    eps: jax.Array
    notfinite_count: jax.Array
    inner: Any

    def gaps(self, values: Values) -> Values:
        """Losses above their bounds."""
        return jnp.maximum(values - self.min_losses, self.eps)

    def loss_weights(self, values: Any) -> Weights:
        """Weights for the next backward pass; :func:`kdopt.loss_weights` calls it."""
        array = given_values(values, self.logits)
        return famo_weights(
            array, self.logits, min_losses=self.min_losses, eps=self.eps
        )


def famo_weights(
    values: Values,
    logits: jax.Array,
    *,
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Weights:
    r"""Weights of a softmax-weighted sum of log-losses, on the scale of raw gradients.

    .. math::
        \pi = \mathrm{softmax}(\xi), \qquad D_i = \max(L_i - b_i, \varepsilon), \qquad
        w_i = \frac{\pi_i / D_i}{\sum_j \pi_j / D_j}

    They are the gradient of :math:`\sum_i \pi_i \log D_i`, divided by its own sum.

    Args:
        values: Loss values :math:`L_i`, ``[k]``.
        logits: :math:`\xi`, ``[k]``.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``.
        eps: Floor of :math:`D_i`.

    Returns:
        Non-negative weights of sum one, ``[k]``; the softmax itself where a value is
        not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> weights = scalarizers.famo_weights(jnp.array([1.0, 3.0]), jnp.zeros(2))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.7500 0.2500

    References:
        Liu et al., `FAMO: Fast Adaptive Multitask Optimization
        <https://arxiv.org/abs/2306.03792>`_, NeurIPS 2023, Eq. 8
    """
    bounds = jnp.asarray(min_losses, values.dtype)
    gaps = jnp.maximum(values - bounds, jnp.asarray(eps, values.dtype))
    gaps = jnp.where(jnp.all(jnp.isfinite(gaps)), gaps, 1)
    # In logarithms nothing overflows, however small a gap is.
    return jax.nn.softmax(logits - jnp.log(gaps))


def log_softmax(
    learning_rate: optax.ScalarOrSchedule,
    *,
    num_losses: int,
    weight_decay: float | jax.Array,
    signal: Signal,
    min_losses: float | Sequence[float] | jax.Array,
    eps: float | jax.Array,
) -> Scalarizer:
    """Makes a scalarizer whose logits descend on what a signal tells of the falls.

    See :func:`kdopt.dto_kd_amortized` for the equations and the signals.
    """
    k = check_num_losses(num_losses, minimum=2)
    optimizer = (
        optax.sgd(learning_rate)
        if signal == "literal"
        else optax.chain(
            optax.add_decayed_weights(weight_decay), optax.adam(learning_rate)
        )
    )

    def init_fn(params: optax.Params) -> LogSoftmaxState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        logits = jnp.zeros(k, dtype)
        return LogSoftmaxState(
            logits=logits,
            log_gaps=jnp.full(k, jnp.nan, dtype),
            min_losses=jnp.broadcast_to(jnp.asarray(min_losses, dtype), (k,)),
            eps=jnp.asarray(eps, dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=optimizer.init(logits),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        value_fn: Any = None,
        gram: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LogSoftmaxState]:
        del extra_args
        dtype = state.logits.dtype
        values = values_array(values, k, dtype)
        gaps = state.gaps(values)
        log_gaps = jnp.log(gaps)
        pi = jax.nn.softmax(state.logits)
        if signal == "next":
            fall = state.log_gaps - log_gaps
        elif signal == "same_batch":
            if value_fn is None or params is None:
                raise ValueError(
                    "signal 'same_batch' needs params and value_fn=, a function from "
                    "parameters to the loss values on this batch."
                )
            after = value_fn(optax.apply_updates(params, updates))
            fall = log_gaps - jnp.log(state.gaps(values_array(after, k, dtype)))
        elif signal == "gram":
            if gram is None:
                raise ValueError(
                    "signal 'gram' needs gram=, that of the raw gradients."
                )
            fall = dot(jnp.asarray(gram, dtype), pi / gaps) / gaps
        else:
            fall = dot(pi, log_gaps) * log_gaps
        seen = jnp.all(jnp.isfinite(values))
        usable = seen & jnp.all(jnp.isfinite(fall))
        fall = jnp.where(usable, fall, 0)
        # The literal reading steps pi and takes a softmax of it; the others step xi.
        base = pi if signal == "literal" else state.logits
        slope = fall if signal == "literal" else pi * (fall - dot(pi, fall))
        step, inner = optimizer.update(slope, state.inner, base)
        logits, inner = hold_unless(
            usable,
            (optax.apply_updates(base, step), inner),
            (state.logits, state.inner),
        )
        missed = jnp.where(seen, 0, 1).astype(jnp.int32)
        return updates, LogSoftmaxState(
            logits=logits,
            log_gaps=jnp.where(seen, log_gaps, state.log_gaps),
            min_losses=jnp.broadcast_to(jnp.asarray(min_losses, dtype), (k,)),
            eps=jnp.asarray(eps, dtype),
            notfinite_count=state.notfinite_count + missed,
            inner=inner,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
