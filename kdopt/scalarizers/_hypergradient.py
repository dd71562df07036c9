"""Weights that descend on a reference loss, from directional derivatives alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._linalg import dot
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses, check_state, count_unless, hold_unless
from kdopt._typing import PresentLike, Scalarizer, Weights
from kdopt.scalarizers._values import all_finite


class HypergradientState(NamedTuple):
    """State of :func:`kdopt.hypergradient`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        logits: Their logits, ``[k]``.
        notfinite_count: Number of skipped steps, int32, on which a slope or the step of
            the logits was not finite.
        inner: State of the optimiser of the logits.
    """

    loss_weights: Weights
    logits: jax.Array
    notfinite_count: jax.Array
    inner: Any


def hypergradient(
    learning_rate: optax.ScalarOrSchedule = 0.025,
    *,
    num_losses: int = 2,
    weight_decay: float | jax.Array = 0.01,
) -> Scalarizer:
    r"""Learns weights that lower a reference loss, with one backward pass per step.

    A step :math:`-\eta \sum_i w_i g_i` moves the reference loss by
    :math:`-\eta \, w^\top r` with :math:`r_i = \langle g_i, g_{ref} \rangle`. So

    .. math:: w = \mathrm{softmax}(s), \qquad
        s \leftarrow \mathrm{adam}\big(s,\;
            -w \odot (r - w^\top r \, \mathbf 1) + \gamma s\big)

    :func:`kdopt.linearize` computes all :math:`r_i` in one forward-mode pass along the
    gradient of the reference loss, so the cost of a step does not grow with K;
    :func:`kdopt.reference_aligned` needs K + 1 gradients and has rules that use their
    norms.

    Args:
        learning_rate: Learning rate of Adam on the logits, a number or a schedule.
        num_losses: K, the reference not counted, at least 2.
        weight_decay: :math:`\gamma`, which pulls towards equal weights.

    Returns:
        A scalarizer: it passes the gradient through and learns from ``slopes`` in
        ``update``, the :math:`r_i`, ``[k]``. The next backward pass takes
        ``kdopt.loss_weights(opt_state)``; the weights sum to one. The logit of a loss
        that is not ``present`` does not change.

    Raises:
        ValueError: If ``num_losses`` is below 2.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> def losses_fn(x):  # the second is no help
        ...     return jnp.sum((x - 1) ** 2), jnp.sum((x + 1) ** 2)
        >>> def reference_fn(x):
        ...     return jnp.sum((x - 0.9) ** 2)
        >>> tx = optax.chain(optax.sgd(0.1), kdopt.hypergradient(0.1))
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for _ in range(50):
        ...     at = kdopt.linearize(losses_fn)(params)
        ...     slopes = at.slopes(jax.grad(reference_fn)(params))
        ...     grads = at.gradient(kdopt.loss_weights(state))
        ...     updates, state = tx.update(grads, state, params, slopes=slopes)
        ...     params = optax.apply_updates(params, updates)
        >>> print("{:.1f} {:.1f}".format(*kdopt.loss_weights(state)))
        1.0 0.0

    References:
        Lin et al., Adaptive Auxiliary Task Weighting for Reinforcement Learning,
        NeurIPS 2019 (OL-AUX);
        Liu et al., `Auto-Lambda: Disentangling Dynamic Task Relationships
        <https://arxiv.org/abs/2202.03091>`_, TMLR 2022

    Notes:
        Auto-Lambda computes the same derivative by a central difference, with three
        more forward and backward passes.
    """
    k = check_num_losses(num_losses, minimum=2)
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.adam(learning_rate)
    )

    def init_fn(params: optax.Params) -> HypergradientState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        logits = jnp.zeros(k, dtype)
        return HypergradientState(
            loss_weights=jnp.full(k, 1 / k, dtype),
            logits=logits,
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=optimizer.init(logits),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        slopes: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, HypergradientState]:
        del params, extra_args
        if slopes is None:
            raise ValueError(
                "hypergradient needs slopes=, [k]: the inner products of the gradients "
                "with that of the reference loss, kdopt.linearize(losses_fn)(params, "
                "...).slopes(reference_grads)."
            )
        check_state(state.logits, k)
        dtype = state.logits.dtype
        mask = present_mask(present, k)
        rates = clear_values(jnp.asarray(slopes, dtype), mask)
        if rates.shape != (k,):
            raise ValueError(
                f"Expected {k} slopes, one per loss, got an array of shape "
                f"{rates.shape}."
            )
        weights = jax.nn.softmax(state.logits)
        share = clear_values(weights, mask)
        mean = dot(share, rates) / jnp.maximum(jnp.sum(share), jnp.finfo(dtype).tiny)
        slope = -share * (rates - mean)
        step, inner = optimizer.update(slope, state.inner, state.logits)
        logits = state.logits + clear_values(jnp.asarray(step), mask)
        sound = all_finite((rates, logits, inner))
        logits, inner = hold_unless(sound, (logits, inner), (state.logits, state.inner))
        return updates, HypergradientState(
            loss_weights=jax.nn.softmax(logits),
            logits=logits,
            notfinite_count=count_unless(sound, state.notfinite_count),
            inner=inner,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
