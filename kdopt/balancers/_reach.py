"""Momentum of each leaf in each stream, given which losses reach the leaf."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from kdopt._typing import PerLossGrads

Reach = PerLossGrads | Callable[[optax.Params], PerLossGrads]
"""For each loss a tree of bools like params: does the loss depend on this leaf?"""


def check_momenta(*momenta: Any) -> None:
    """Checks the momenta that are numbers; schedules and None pass.

    Raises:
        ValueError: If one is outside [0, 1).
    """
    for momentum in momenta:
        if isinstance(momentum, (int, float)) and not 0 <= momentum < 1:
            raise ValueError(
                f"A momentum must lie in [0, 1), got {momentum:.4g}: at 1 or more the "
                "buffer grows without bound."
            )


def plus(
    momentum: optax.ScalarOrSchedule, delta: optax.ScalarOrSchedule, sign: int
) -> optax.ScalarOrSchedule:
    """Adds a signed delta to a momentum; a schedule if either is one."""
    if not callable(momentum) and not callable(delta):
        return momentum + sign * delta

    def schedule(count: Any) -> Any:
        return at(momentum, count) + sign * at(delta, count)

    return schedule


def at(number: optax.ScalarOrSchedule, count: jax.Array) -> Any:
    """Returns the number, or the value of the schedule at this step."""
    return number(count) if callable(number) else number


def leaf_momenta(
    momenta: tuple[optax.ScalarOrSchedule, ...],
    solo_momentum: optax.ScalarOrSchedule | None,
    reach: Reach | None,
    *,
    count: jax.Array,
    grads: PerLossGrads,
    params: Any,
) -> list[list[Any]]:
    """Returns the momentum of this step, for each leaf and each loss.

    A leaf that only one loss reaches gets ``solo_momentum``, by default the mean.

    Raises:
        ValueError: If ``reach`` does not hold one tree per loss.
    """
    current = [at(momentum, count) for momentum in momenta]
    alone = sum(current) / len(current)
    if solo_momentum is not None:
        alone = at(solo_momentum, count)
    like = grads[0] if params is None else params
    masks = reach(like) if callable(reach) else reach
    if masks is None:
        return [current for _ in jax.tree.leaves(grads[0])]
    if len(masks) != len(grads):
        raise ValueError(
            f"reach must hold one tree of bools per loss, {len(grads)} of them, got "
            f"{len(masks)}."
        )
    columns = [jax.tree.leaves(jax.tree.broadcast(mask, grads[0])) for mask in masks]
    return [
        [alone] * len(current) if sum(map(bool, flags)) == 1 else current
        for flags in zip(*columns, strict=True)
    ]
