"""Checks of hyper-parameters, made once, in the factory.

A number may also be a traced array (``optax.inject_hyperparams``), whose value is not
known at that time: only Python numbers are checked.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdopt._typing import Weights

Preference = Sequence[float] | jax.Array | None
"""Relative importance of the K losses; None for equal."""

PerOther = float | Sequence[float] | jax.Array
"""A number for all losses but the first, or one for each of them, ``[k - 1]``."""


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks that an option is one of the allowed words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def check_range(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> None:
    """Checks the range of a Python number; arrays and schedules pass unchecked."""
    if not isinstance(value, (int, float)):
        return
    low = value > minimum if open_minimum else value >= minimum
    high = value < maximum if open_maximum else value <= maximum
    if not (low and high):
        left = "(" if open_minimum else "["
        right = ")" if open_maximum else "]"
        raise ValueError(
            f"{name} must lie in {left}{minimum:g}, {maximum:g}{right}, got {value!r}."
        )


def check_preference(preference: Preference, num_losses: int) -> None:
    """Checks that there is one number per loss and that none is negative."""
    if preference is None:
        return
    array = preference_array(preference, num_losses, jnp.zeros(()).dtype)
    if not isinstance(array, jax.core.Tracer) and bool(jnp.any(array < 0)):
        raise ValueError(f"preference must not be negative, got {preference!r}.")


def preference_array(preference: Preference, k: int, dtype: jnp.dtype) -> Weights:
    """Converts a preference to an array; None becomes ``1 / k`` each.

    Raises:
        ValueError: If there are not K numbers.
    """
    if preference is None:
        return jnp.full(k, 1 / k, dtype)
    array = jnp.asarray(preference, dtype)
    if array.shape != (k,):
        raise ValueError(
            f"preference must hold one number per loss, {k} of them, got an array of "
            f"shape {array.shape}."
        )
    return array


def per_other(numbers: PerOther, k: int, dtype: jnp.dtype, name: str) -> jax.Array:
    """Broadcasts a number, or one for each loss but the first, to ``[k - 1]``.

    Raises:
        ValueError: If it is neither.
    """
    array = jnp.asarray(numbers, dtype)
    if array.shape not in ((), (k - 1,)):
        raise ValueError(
            f"{name} must be one number, or one for each of the {k - 1} losses after "
            f"the first, got an array of shape {array.shape}."
        )
    return jnp.broadcast_to(array, (k - 1,))


def loss_names(names: Sequence[str] | None, num_losses: int) -> tuple[str, ...]:
    """Checks the names of the K losses, or makes default ones."""
    if names is None:
        more = (f"distill_{i}" for i in range(1, num_losses))
        return ("task", *(["distill"] if num_losses == 2 else more))
    if len(names) != num_losses:
        raise ValueError(
            f"Expected {num_losses} names, one per loss, got {len(names)}: pass names=."
        )
    return tuple(names)
