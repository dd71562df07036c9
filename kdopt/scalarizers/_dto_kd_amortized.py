"""DTO-KD, amortised: the weights follow the losses, one backward pass a step."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import check_num_losses, hold_unless, values_array
from kdopt._typing import Scalarizer, Values, Weights

Signal = Literal["next", "same_batch", "gram", "literal"]


class DtoKdAmortizedState(NamedTuple):
    r"""State of :func:`dto_kd_amortized`.

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

    def loss_weights(self, values: Values | None) -> Weights:
        """Weights for the next backward pass; :func:`kdopt.loss_weights` calls it."""
        if values is None:
            raise ValueError(
                "The weights of dto_kd_amortized depend on the loss values: use "
                "kdopt.loss_weights(opt_state, values), or give "
                "value_and_weighted_grad "
                "weights=lambda values: kdopt.loss_weights(opt_state, values)."
            )
        raw = jax.nn.softmax(self.logits) / self.gaps(values.astype(self.logits.dtype))
        return raw / jnp.sum(raw)


def dto_kd_amortized(
    learning_rate: optax.ScalarOrSchedule = 0.025,
    *,
    num_losses: int = 2,
    weight_decay: float | jax.Array = 0.01,
    signal: Signal = "next",
    min_losses: float | Sequence[float] | jax.Array = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Scalarizer:
    r"""Learns the trade-off weights of DTO-KD, with one backward pass a step.

    With :math:`D_i = L_i - b_i` and logits :math:`\xi` under a softmax:

    .. math::
        \pi = \mathrm{softmax}(\xi), \qquad
        u = \frac{\sum_i \pi_i \nabla \log D_i}{\sum_j \pi_j / D_j}, \qquad
        \xi \leftarrow \mathrm{adam}\big(\xi,\;
            \mathrm{diag}(\pi) (\delta - \pi^\top \delta \, \mathbf 1) + \gamma \xi\big)

    where :math:`\delta_i \approx \eta \langle \nabla \log D_i, u \rangle` says how fast
    each log-loss falls: the loss that just fell most loses weight. At rest all fall at
    the same rate, as in the exact form (:func:`kdopt.dto_kd`), which this follows with
    a lag of about ``1 / learning_rate`` steps. The update is a convex combination of
    the gradients.

    ============== ================================================ ====================
    signal         :math:`\delta`                                   needs in ``update``
    ============== ================================================ ====================
    ``next``       :math:`\log D` at the last step minus at this    ``values``
    ``same_batch`` :math:`\log D` before minus after the update,    ``values, value_fn``
                   on the same batch (one more forward pass)
    ``gram``       :math:`G^{\log} \pi`, exact                      ``values, gram``
    ``literal``    the printed Eq. 18, with no gradient in it       ``values``
    ============== ================================================ ====================

    ``same_batch`` calls ``value_fn(new_params) -> values`` at ``params + updates``, so
    it must be the last in its chain. ``gram`` is the Gram matrix of the raw gradients;
    one that holds NaN leaves the weights as they are, for use every n steps.

    Args:
        learning_rate: Of Adam on the logits; a number or a schedule.
        num_losses: K, at least 2.
        weight_decay: :math:`\gamma`, an L2 term that pulls to equal weights.
        signal: One of the four above.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``.
        eps: Floor of :math:`D_i`.

    Returns:
        A scalarizer: it passes the gradient through and learns from ``values``. The
        next backward pass takes ``kdopt.loss_weights(opt_state, values)``.

    Raises:
        ValueError: If ``signal`` is unknown or ``num_losses`` below 2.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)
        >>> tx = optax.chain(optax.sgd(0.1), kdopt.dto_kd_amortized())
        >>> params = jnp.array([2.0, 3.0])
        >>> state = tx.init(params)
        >>> grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        >>> for _ in range(50):
        ...     weights = lambda values: kdopt.loss_weights(state, values)
        ...     values, grads = grad_fn(params, weights=weights)
        ...     updates, state = tx.update(grads, state, params, values=values)
        ...     params = optax.apply_updates(params, updates)
        >>> print(f"{params[0]:.2f} {params[1]:.2f}")
        1.83 2.70

    References:
        Hayder et al., DTO-KD: Dynamic Trade-off Optimization for Effective Knowledge
        Distillation, ICLR 2026, Eq. 18 and Algorithm 1;
        Liu et al., `FAMO: Fast Adaptive Multitask Optimization
        <https://arxiv.org/abs/2306.03792>`_, NeurIPS 2023, Algorithm 1

    Notes:
        Eq. 18 as printed differentiates
        :math:`\frac12 (\sum_i \pi_i \log L_i)^2`, without the gradient signs: it is
        unrelated to the minimum-norm problem, its sign flips when a loss passes 1, and
        a softmax of :math:`\pi` itself contracts to equal weights. ``literal`` does
        just that, for the record. Algorithm 1 prepares the loss after the step, and its
        settings are FAMO's, so the other three are that reading.
    """
    if signal not in get_args(Signal):
        raise ValueError(
            f"signal must be one of {', '.join(get_args(Signal))}, got {signal!r}."
        )
    k = check_num_losses(num_losses, minimum=2)
    optimizer = (
        optax.sgd(learning_rate)
        if signal == "literal"
        else optax.chain(
            optax.add_decayed_weights(weight_decay), optax.adam(learning_rate)
        )
    )

    def init_fn(params: optax.Params) -> DtoKdAmortizedState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        logits = jnp.zeros(k, dtype)
        return DtoKdAmortizedState(
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
    ) -> tuple[optax.Updates, DtoKdAmortizedState]:
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
            fall = jnp.asarray(gram, dtype) @ (pi / gaps) / gaps
        else:
            fall = jnp.dot(pi, log_gaps) * log_gaps
        seen = jnp.all(jnp.isfinite(values))
        usable = seen & jnp.all(jnp.isfinite(fall))
        fall = jnp.where(usable, fall, 0)
        # The literal reading steps pi and takes a softmax of it; the others step xi.
        base = pi if signal == "literal" else state.logits
        slope = fall if signal == "literal" else pi * (fall - jnp.dot(pi, fall))
        step, inner = optimizer.update(slope, state.inner, base)
        logits, inner = hold_unless(
            usable,
            (optax.apply_updates(base, step), inner),
            (state.logits, state.inner),
        )
        missed = jnp.where(seen, 0, 1).astype(jnp.int32)
        return updates, state._replace(
            logits=logits,
            log_gaps=jnp.where(seen, log_gaps, state.log_gaps),
            notfinite_count=state.notfinite_count + missed,
            inner=inner,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
