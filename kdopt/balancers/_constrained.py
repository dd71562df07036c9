"""Lowest task loss under bounds on the progress of the others."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import PerOther, check_choice, per_other
from kdopt._cone import constrained_correction
from kdopt._linalg import dot
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Values, Weights

Conflict: TypeAlias = Literal["allow", "relax", "drop"]


class ConstraintCounts(NamedTuple):
    """Counts of steps on which constraints conflicted.

    Attributes:
        infeasible: Number of steps, int32, on which no direction met all bounds.
        task_rises: Number of steps, int32, on which meeting them would have raised the
            task loss, whatever ``on_conflict`` did about it.
    """

    infeasible: jax.Array
    task_rises: jax.Array

    def add(self, step: "ConstrainedStep") -> "ConstraintCounts":
        """Counts a step."""
        return ConstraintCounts(
            self.infeasible + (~step.feasible).astype(jnp.int32),
            self.task_rises + step.task_rises.astype(jnp.int32),
        )


def no_counts() -> ConstraintCounts:
    """Returns the counts before the first step."""
    return ConstraintCounts(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


class ConstrainedStep(NamedTuple):
    """Solution of a step: weights ``[k]``, and two scalar bools about it."""

    weights: Weights
    feasible: jax.Array
    task_rises: jax.Array


def constrained_step(
    gram: Gram, bounds: jax.Array, on_conflict: Conflict
) -> ConstrainedStep:
    """Solves for the step; see :func:`constrained_weights`."""
    first, others = gram[0, 1:], gram[1:, 1:]
    alone = jnp.zeros(len(gram), gram.dtype).at[0].set(1)

    def solve(bounds: jax.Array) -> tuple[jax.Array, jax.Array]:
        multipliers, feasible = constrained_correction(others, bounds - first)
        return alone.at[1:].set(multipliers), feasible

    weights, feasible = solve(bounds)
    terms = gram[0] * weights
    rounding = 16 * len(gram) * jnp.finfo(gram.dtype).eps * jnp.sum(jnp.abs(terms))
    rises = dot(gram[0], weights) < -rounding
    if on_conflict == "relax":
        weights = jnp.where(rises, solve(jnp.minimum(bounds, 0))[0], weights)
    if on_conflict == "drop":
        weights = jnp.where(rises, alone, weights)
    return ConstrainedStep(weights, feasible, rises)


def constrained_weights(
    gram: Gram, bounds: PerOther = 0.0, *, on_conflict: Conflict = "allow"
) -> Weights:
    r"""Returns the weights of the step nearest to the task's that meets the bounds.

    .. math::
        d = \arg\min_d \tfrac12 \lVert d - g_0 \rVert^2 \quad \text{s.t.} \quad
        \langle g_j, d \rangle \ge b_j \;\; (j \ge 1), \qquad
        d = g_0 + \sum_{j \ge 1} \mu_j g_j

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``, the task first.
        bounds: :math:`b_j`, a number or ``[k - 1]``: the smallest allowed decrease per
            unit of learning rate. 0 keeps loss j from rising; a negative bound lets it
            rise by that much.
        on_conflict: What to do where meeting the bounds raises the task loss:
            ``"allow"`` it; ``"relax"`` positive bounds to 0, so that the task loss
            never rises; or ``"drop"`` all bounds for the step.

    Returns:
        The weights :math:`(1, \mu)`, ``[k]``, exact to rounding by an active-set
        method. If no direction meets all bounds they are :math:`(1, 0, \dots, 0)`. A
        zero gradient sets no bound.

    Raises:
        ValueError: If ``on_conflict`` is unknown, or there are not K - 1 bounds.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(kdopt.constrained_weights(gram, 5.0).round(4))
        [1.     0.7105]

    References:
        Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
        <https://arxiv.org/abs/1706.08840>`_, NeurIPS 2017, Eq. 11 (bounds of 0);
        Gong, Liu and Liu, Automatic and Harmless Regularization with Constrained and
        Lexicographic Optimization: A Dynamic Barrier Approach, NeurIPS 2021
    """
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    array = per_other(bounds, len(gram), gram.dtype, "bounds")
    return constrained_step(gram, array, on_conflict).weights


def constrained(
    *,
    num_losses: int = 2,
    bounds: PerOther | Callable[[Gram, Values], jax.Array] = 0.0,
    on_conflict: Conflict = "allow",
    axis_name: str | None = None,
) -> Balancer:
    r"""Minimises the task loss while every other loss makes the required progress.

    The step is that of the task loss alone if that meets the bounds, otherwise the
    nearest step that does. With bounds of 0 no loss rises, and the task loss falls by
    :math:`\lVert d \rVert^2` per unit of learning rate. For bounds in units of the
    values, or bounds that move, see :func:`kdopt.dynamic_barrier`; for bounds on
    cosines, :func:`kdopt.pcd`.

    Args:
        num_losses: K, at least 2.
        bounds: :math:`b_j`, a number or ``[k - 1]``, or a function from Gram matrix and
            values to ``[k - 1]``, for which ``update`` needs ``values``.
        on_conflict: See :func:`constrained_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`constrained_weights` for the equation. The first weight
        is 1: keep the learning rate of the task loss alone. Where the task gradient is
        zero and no bound is positive the step is zero: it does not train the others.
        ``state.inner`` counts the steps without a solution and those on which meeting
        the bounds would have raised the task loss.

    Raises:
        ValueError: If ``num_losses`` is below 2, ``on_conflict`` unknown, or there are
            not K - 1 bounds.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.constrained()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, state = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print(update.round(4), state.inner.infeasible)
        [-0.5263  1.5789  1.5789] 0
    """
    k = check_num_losses(num_losses, minimum=2)
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    if not callable(bounds):
        per_other(bounds, k, jnp.zeros(()).dtype, "bounds")

    def weights_fn(
        gram: Gram, values: Any, counts: ConstraintCounts
    ) -> tuple[Weights, ConstraintCounts]:
        given = bounds(gram, values) if callable(bounds) else bounds
        array = per_other(given, k, gram.dtype, "bounds")
        step = constrained_step(gram, array, on_conflict)
        return step.weights, counts.add(step)

    return from_gram(
        weights_fn,
        k,
        needs_values=callable(bounds),
        initial_state=no_counts(),
        axis_name=axis_name,
    )
