"""The dynamic barrier: the task loss subject to limits on the values of the others."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax

from kdopt._checks import PerOther, check_choice, check_range, per_other
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Values, Weights
from kdopt.balancers._constrained import (
    Conflict,
    ConstraintCounts,
    constrained_step,
    no_counts,
)

Limits: TypeAlias = (
    float | Sequence[float] | jax.Array | Callable[[jax.Array], PerOther]
)
"""Limits of all losses but the first, or a function from the step to them."""


class DynamicBarrierMemory(NamedTuple):
    """State that :func:`dynamic_barrier` carries between steps.

    Attributes:
        step: Number of finite steps, int32.
        counts: Steps on which constraints conflicted.
    """

    step: jax.Array
    counts: ConstraintCounts


def barrier_bounds(
    gram: Gram,
    values: Values,
    limits: PerOther,
    *,
    rate: PerOther = 1.0,
    cap: PerOther | None = 1.0,
) -> jax.Array:
    """Computes the bounds of :func:`dynamic_barrier_weights`, ``[k - 1]``."""
    k, dtype = len(gram), gram.dtype
    above = values[1:].astype(dtype) - per_other(limits, k, dtype, "limits")
    bounds = per_other(rate, k, dtype, "rate") * above
    if cap is None:
        return bounds
    own = per_other(cap, k, dtype, "cap") * jnp.diagonal(gram)[1:]
    return jnp.minimum(bounds, own)


def dynamic_barrier_weights(
    gram: Gram,
    values: Values,
    limits: PerOther,
    *,
    rate: PerOther = 1.0,
    cap: PerOther | None = 1.0,
    on_conflict: Conflict = "allow",
) -> Weights:
    r"""Returns the weights of the step nearest to the task's that meets the limits.

    .. math::
        d = \arg\min_d \tfrac12 \lVert d - g_0 \rVert^2 \quad \text{s.t.} \quad
        \langle g_j, d \rangle \ge
        \min\big(\alpha_j (L_j - \epsilon_j),\; \beta_j \lVert g_j \rVert^2\big)
        \;\; (j \ge 1)

    A loss above its limit must fall at the rate :math:`\alpha`; one below it may rise,
    the more the further it is below.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``, the task first.
        values: Loss values, ``[k]``.
        limits: :math:`\epsilon_j`, a number or ``[k - 1]``.
        rate: :math:`\alpha_j > 0`, a number or ``[k - 1]``.
        cap: :math:`\beta_j`, a number or ``[k - 1]``: a loss is asked for at most this
            share of the decrease along its own gradient; None for no cap.
        on_conflict: See :func:`kdopt.constrained_weights`.

    Returns:
        The weights :math:`(1, \mu)`, ``[k]``.

    Raises:
        ValueError: See :func:`kdopt.constrained_weights`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> for value in (0.5, 6.0):
        ...     values = jnp.array([1.0, value])
        ...     weights = kdopt.dynamic_barrier_weights(gram, values, 1.0)
        ...     print("{:.4f} {:.4f}".format(*weights))
        1.0000 0.5658
        1.0000 0.7105

    References:
        Gong, Liu and Liu, Automatic and Harmless Regularization with Constrained and
        Lexicographic Optimization: A Dynamic Barrier Approach, NeurIPS 2021
    """
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    bounds = barrier_bounds(gram, values, limits, rate=rate, cap=cap)
    return constrained_step(gram, bounds, on_conflict).weights


def dynamic_barrier(
    limits: Limits,
    *,
    num_losses: int = 2,
    rate: PerOther = 1.0,
    cap: PerOther | None = 1.0,
    on_conflict: Conflict = "allow",
    axis_name: str | None = None,
) -> Balancer:
    r"""Minimises the task loss subject to limits on the values of the others.

    Three goals have this form:

    * *A subject to B at most* :math:`\epsilon`: ``dynamic_barrier(eps)``. To first
      order a loss that is at its limit stays, one above decays towards it as
      :math:`e^{-\alpha \eta t}` at the learning rate :math:`\eta`.
    * *B falls by a fraction* :math:`\alpha` *of itself* per unit of learning rate:
      ``dynamic_barrier(0.0, rate=alpha, cap=None)``.
    * *B follows a curve*, that of a reference run: a function from the step to limits,
      ``dynamic_barrier(curve)``.

    No multiplier is learned, so it does not oscillate, but it needs K backward passes;
    :func:`kdopt.lagrangian` needs one and meets its limits on average.

    Args:
        limits: :math:`\epsilon_j`, a number or ``[k - 1]``, or a function from the
            number of past steps to either.
        num_losses: K, at least 2.
        rate: See :func:`dynamic_barrier_weights`.
        cap: See :func:`dynamic_barrier_weights`.
        on_conflict: See :func:`kdopt.constrained_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`dynamic_barrier_weights` for the equation. ``update``
        needs ``values``. The first weight is 1: keep the learning rate of the task loss
        alone. ``state.inner.counts`` is that of :func:`kdopt.constrained`.

    Raises:
        ValueError: If ``num_losses`` is below 2, a number is out of its range,
            ``on_conflict`` unknown, or there are not K - 1 numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dynamic_barrier(1.0)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)), values=(2.0, 6.0))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.2632 1.7105 1.7105

    References:
        Gong, Liu and Liu, Automatic and Harmless Regularization with Constrained and
        Lexicographic Optimization: A Dynamic Barrier Approach, NeurIPS 2021
    """
    k = check_num_losses(num_losses, minimum=2)
    check_range("rate", rate, 0.0, open_minimum=True)
    check_range("cap", cap, 0.0, open_minimum=True)
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    fixed = {"limits": limits, "rate": rate, "cap": 1.0 if cap is None else cap}
    for name, numbers in fixed.items():
        if not callable(numbers):
            per_other(numbers, k, jnp.zeros(()).dtype, name)

    def weights_fn(
        gram: Gram, values: Values, memory: DynamicBarrierMemory
    ) -> tuple[Weights, DynamicBarrierMemory]:
        now = limits(memory.step) if callable(limits) else limits
        bounds = barrier_bounds(gram, values, now, rate=rate, cap=cap)
        step = constrained_step(gram, bounds, on_conflict)
        count = jnp.asarray(optax.safe_increment(memory.step))
        counts = memory.counts.add(step)
        return step.weights, DynamicBarrierMemory(count, counts)

    return from_gram(
        weights_fn,
        k,
        needs_values=True,
        initial_state=DynamicBarrierMemory(jnp.zeros((), jnp.int32), no_counts()),
        axis_name=axis_name,
    )
