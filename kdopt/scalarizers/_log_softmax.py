"""The engine of FAMO: softmax logits that follow the fall of the log-losses."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._linalg import dot
from kdopt._log_losses import Bounds, Gaps, gaps_above, last_logs
from kdopt._loss_weights import ValuesState, weights_of_values
from kdopt._present import present_mask
from kdopt._simplex import leave_out
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    hold_unless,
    start_state,
    values_array,
)
from kdopt._typing import Mask, PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import all_finite

Signal = Literal["next", "same_batch", "directional", "gram", "literal"]


def _next_weights(
    values: Values,
    *,
    min_losses: Values,
    eps: jax.Array,
    logits: jax.Array,
    log_gaps: Values,
    seen: jax.Array,
    present: Mask | None = None,
) -> Weights:
    found = gaps_above(values, min_losses, eps, present)
    # Logarithms cannot overflow, however small a gap is.
    return jax.nn.softmax(logits - last_logs(found, log_gaps, seen))


class LogSoftmaxState(ValuesState):
    r"""State of :func:`kdopt.famo` and :func:`kdopt.dto_kd_amortized`.

    Its memory is ``logits``, :math:`\xi`, whose softmax gives the trade-off weights;
    ``log_gaps``, :math:`\log D` when the losses were last above their bounds; and
    ``seen``, which of them ever were; ``[k]`` each.
    """

    weights_fn = staticmethod(_next_weights)


def famo_weights(
    values: Values,
    logits: jax.Array,
    *,
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Weights:
    r"""Returns the weights of a softmax-weighted sum of log-losses, for raw gradients.

    .. math::
        \pi = \mathrm{softmax}(\xi), \qquad D_i = \max(L_i - b_i, \varepsilon), \qquad
        w_i = \frac{\pi_i / D_i}{\sum_j \pi_j / D_j}

    They are the gradient of :math:`\sum_i \pi_i \log D_i`, divided by its own sum.

    Args:
        values: Loss values :math:`L_i`, ``[k]``.
        logits: :math:`\xi`, ``[k]``.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``.
        eps: Floor of positive :math:`D_i`.

    Returns:
        Non-negative weights of sum one, ``[k]``; the softmax itself where a value is
        not finite. Losses must be above their bounds: one that is exactly 0 counts as
        absent and has no weight; any other makes the weights NaN.

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
    finite = jnp.all(jnp.isfinite(values))
    found = gaps_above(jnp.where(finite, values, jnp.inf), min_losses, eps)
    counts = found.usable | ~jnp.any(found.usable)
    scores = jnp.where(counts, logits - jnp.log(found.gaps), -jnp.inf)
    # Logarithms cannot overflow, however small a gap is.
    weights = jax.nn.softmax(scores)
    return jnp.where(found.defined | ~finite, weights, jnp.nan)


def log_softmax(
    learning_rate: optax.ScalarOrSchedule,
    *,
    num_losses: int,
    weight_decay: float | jax.Array,
    signal: Signal,
    min_losses: Bounds,
    eps: float | jax.Array,
) -> Scalarizer:
    """Builds a scalarizer whose logits follow a signal of how fast the losses fall.

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

    def bounds(dtype: jnp.dtype) -> dict[str, jax.Array]:
        lower = jnp.broadcast_to(jnp.asarray(min_losses, dtype), (k,))
        return start_state({"min_losses": lower, "eps": eps}, dtype)

    def init_fn(params: optax.Params) -> LogSoftmaxState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        logits = jnp.zeros(k, dtype)
        return LogSoftmaxState(
            loss_weights=jnp.full(k, 1 / k, dtype),
            settings=bounds(dtype),
            memory={
                "logits": logits,
                "log_gaps": jnp.zeros(k, dtype),
                "seen": jnp.zeros(k, bool),
            },
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
        slopes_fn: Any = None,
        gram: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LogSoftmaxState]:
        del extra_args
        check_state(state.loss_weights, k)
        dtype, mask = state.loss_weights.dtype, present_mask(present, k)
        memory = state.memory

        def gaps_of(values: Any) -> Gaps:
            array = values_array(values, k, dtype, mask)
            return gaps_above(array, mask=mask, **state.settings)

        found = gaps_of(values)
        sound, known = found.defined, found.usable
        log_gaps = jnp.log(found.gaps)
        pi = jax.nn.softmax(memory["logits"])
        if signal == "next":
            fall, known = memory["log_gaps"] - log_gaps, known & memory["seen"]
        elif signal == "same_batch":
            if value_fn is None or params is None:
                raise ValueError(
                    "signal 'same_batch' needs params and value_fn=, a function from "
                    "parameters to the loss values on this batch."
                )
            after = gaps_of(value_fn(optax.apply_updates(params, updates)))
            sound, known = sound & after.defined, known & after.usable
            fall = log_gaps - jnp.log(after.gaps)
        elif signal == "directional":
            if slopes_fn is None:
                raise ValueError(
                    "signal 'directional' needs slopes_fn=, a function from the update "
                    "to the derivatives of the losses along it: "
                    "kdopt.linearize(losses_fn)(params, ...).slopes."
                )
            slopes = jax.lax.stop_gradient(jnp.asarray(slopes_fn(updates), dtype))
            sound &= jnp.all(jnp.isfinite(jnp.where(known, slopes, 0)))
            fall = -slopes / found.gaps
        elif signal == "gram":
            if gram is None:
                raise ValueError(
                    "signal 'gram' needs gram=, the Gram matrix of the raw gradients."
                )
            matrix = jnp.asarray(gram, dtype)
            # A matrix with NaN counts as none, so that one can be passed every n steps.
            known = known & ~jnp.any(jnp.isnan(matrix))
            matrix = leave_out(jnp.nan_to_num(matrix), found.usable)
            fall = dot(matrix, pi / found.gaps) / found.gaps
        else:
            fall = dot(pi, jnp.where(known, log_gaps, 0)) * log_gaps
        # An unknown fall counts as that of the others: it moves no logit.
        share = jnp.where(known, pi, 0)
        mean = dot(share, jnp.where(known, fall, 0)) / jnp.sum(share)
        # The literal reading steps pi and takes a softmax of it; the others step xi.
        base = pi if signal == "literal" else memory["logits"]
        slope = fall if signal == "literal" else pi * (fall - mean)
        slope = jnp.where(known, slope, 0)
        step, inner = optimizer.update(slope, state.inner, base)
        logits = optax.apply_updates(base, step)
        sound &= all_finite((logits, inner))
        logits, inner = hold_unless(
            sound & jnp.any(known), (logits, inner), (memory["logits"], state.inner)
        )
        usable = sound & found.usable
        known = sound if mask is None else sound & mask
        weights = weights_of_values(state, values, mask)
        return updates, LogSoftmaxState(
            loss_weights=jnp.where(known, weights, state.loss_weights),
            settings=bounds(dtype),
            memory={
                "logits": logits,
                "log_gaps": jnp.where(usable, log_gaps, memory["log_gaps"]),
                "seen": memory["seen"] | usable,
            },
            notfinite_count=count_unless(sound, state.notfinite_count),
            inner=inner,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
