"""Multipliers for losses with limits, learned by a controller."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import PerOther, check_choice, check_range, per_other
from kdopt._transform import check_num_losses
from kdopt._typing import Mask, Scalarizer, Values, Weights
from kdopt.scalarizers._memory import from_memory

Start: TypeAlias = Literal["plain", "zeros"]


class LagrangianMemory(NamedTuple):
    """State that :func:`lagrangian` carries between steps.

    Attributes:
        multipliers: The multipliers, ``[k - 1]``.
        errors: Running means of the excess over the limits, ``[k - 1]``.
        seen: Which losses had a step, ``[k - 1]``.
    """

    multipliers: jax.Array
    errors: jax.Array
    seen: jax.Array


def lagrangian(
    limits: PerOther,
    *,
    num_losses: int = 2,
    learning_rate: float | jax.Array = 0.01,
    integral: float | jax.Array = 1.0,
    proportional: float | jax.Array = 0.0,
    smoothing: float | jax.Array = 0.0,
    start: Start = "plain",
    initial: PerOther = 0.0,
) -> Scalarizer:
    r"""Minimises the task loss subject to limits, by learned multipliers.

    With :math:`e_j = L_j - \epsilon_j` for the losses after the first:

    .. math::
        \xi_t = \nu \xi_{t-1} + (1 - \nu) e_t, \qquad
        \lambda \leftarrow \big[ \lambda + \gamma (K_I e_t
            + K_P (\xi_t - \xi_{t-1})) \big]_+, \qquad
        w = (1, \lambda)

    A multiplier grows while its loss is above the limit and falls to 0 while it is
    below. With :math:`K_P = 0` it is dual ascent, which oscillates;
    the proportional part damps that. *Unlike* :func:`kdopt.dynamic_barrier`, *it takes
    one backward pass instead of K, keeps a state, and meets its limits in the long run
    rather than at every step.*

    Args:
        limits: :math:`\epsilon_j`, a number or ``[k - 1]``.
        num_losses: K, at least 2.
        learning_rate: :math:`\gamma`.
        integral: :math:`K_I`.
        proportional: :math:`K_P`.
        smoothing: :math:`\nu < 1`; may be negative.
        start: :math:`\xi` begins at 0. ``"plain"`` leaves it there on the first step,
            which is plain dual ascent; ``"zeros"`` does not.
        initial: Initial :math:`\lambda`, a number or ``[k - 1]``.

    Returns:
        A scalarizer; ``update`` needs ``values``. The first weight is 1, so keep the
        learning rate of the task loss alone; the others have no upper bound and grow
        while limits cannot be met. A loss that is not ``present`` keeps its multiplier.

    Raises:
        ValueError: If ``num_losses`` is below 2, a number out of its range, ``start``
            unknown, or there are not K - 1 numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.lagrangian(1.0, learning_rate=0.1, proportional=2.0)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for value in (2.0, 1.5, 0.8):
        ...     _, state = tx.update(params, state, params, values=(3.0, value))
        ...     print("{:.2f} {:.2f}".format(*kdopt.loss_weights(state)))
        1.00 0.10
        1.00 0.25
        1.00 0.09

    References:
        Sohrabi et al., `On PI Controllers for Updating Lagrange Multipliers in
        Constrained Optimization <https://arxiv.org/abs/2406.04558>`_, ICML 2024
    """
    k = check_num_losses(num_losses, minimum=2)
    check_choice("start", start, get_args(Start))
    check_range("learning_rate", learning_rate, 0.0, open_minimum=True)
    check_range("smoothing", smoothing, maximum=1.0, open_maximum=True)
    first = per_other(initial, k, jnp.zeros(()).dtype, "initial")
    per_other(limits, k, first.dtype, "limits")

    def step_fn(
        values: Values, memory: LagrangianMemory, present: Mask
    ) -> tuple[Weights, LagrangianMemory]:
        dtype, here = values.dtype, present[1:]

        def number(x: float | jax.Array) -> jax.Array:
            return jnp.asarray(x, dtype)

        excess = values[1:] - per_other(limits, k, dtype, "limits")
        nu = number(smoothing)
        errors = nu * memory.errors + (1 - nu) * excess
        if start == "plain":
            errors = jnp.where(memory.seen, errors, memory.errors)
        change = number(integral) * excess
        change += number(proportional) * (errors - memory.errors)
        moved = jnp.maximum(memory.multipliers + number(learning_rate) * change, 0)
        multipliers = jnp.where(here, moved, memory.multipliers)
        return jnp.append(jnp.ones(1, dtype), multipliers), LagrangianMemory(
            multipliers,
            jnp.where(here, errors, memory.errors),
            memory.seen | here,
        )

    return from_memory(
        step_fn,
        num_losses=k,
        initial_weights=jnp.append(jnp.ones(1, first.dtype), first),
        initial_state=LagrangianMemory(first, jnp.zeros(k - 1), jnp.zeros(k - 1, bool)),
    )
