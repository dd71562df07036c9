"""Curriculum temperature: a temperature trained against the student."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._shapes import as_array, check_positive, show


def ctkd_temperature(
    parameter: ArrayLike,
    reversal: ArrayLike,
    *,
    minimum: float = 1.0,
    span: float = 20.0,
) -> Float[Array, "..."]:
    r"""Computes a temperature from a parameter trained to make distillation harder.

    .. math::
        \tau(x) = \tau_0 + \Delta\tau \, \sigma(x), \qquad
        \frac{\partial L}{\partial x} := -\lambda \, \frac{\partial L}{\partial \tau}
        \, \Delta\tau \, \sigma'(x)

    The reversed sign lets one optimiser descend for the student and ascend for the
    temperature. Pass the result as ``temperature`` of a loss on logits.

    Args:
        parameter: :math:`x`, trained with the student; 0 starts in the middle. Any
            shape, such as ``[]`` (global) or ``[b, 1]`` (one per example).
        reversal: :math:`\lambda \ge 0`, strength of the adversary, from
            :func:`ctkd_reversal`.
        minimum: :math:`\tau_0`, the lowest temperature.
        span: :math:`\Delta\tau`; the highest temperature is ``minimum + span``.

    Returns:
        The temperature, in the shape of ``parameter``, at least float32.

    Raises:
        ValueError: If ``reversal`` is not one number, or ``minimum`` is not positive.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> print(losses.ctkd_temperature(jnp.array(0.0), 1.0))
        11.0
        >>> print(jax.grad(losses.ctkd_temperature)(jnp.array(0.0), 1.0))
        -5.0

    References:
        Li et al., `Curriculum Temperature for Knowledge Distillation
        <https://arxiv.org/abs/2211.16231>`_, AAAI 2023
    """
    check_positive("minimum", minimum)
    x = at_least_float32(as_array("parameter", parameter))
    strength = as_array("reversal", reversal).astype(x.dtype)
    if strength.ndim:
        raise ValueError(f"reversal must be one number, got {show(strength)}.")
    fixed = jax.lax.stop_gradient(x)
    reversed_x = fixed - strength * (x - fixed)
    return minimum + span * jax.nn.sigmoid(reversed_x)


def ctkd_reversal(
    epoch: int | float | jax.Array, *, num_epochs: int | float = 10
) -> Scalar:
    r"""Computes the cosine curriculum of the adversary's strength, from 0 to 1.

    .. math:: \lambda(e) = \tfrac12 \big(1 - \cos(\pi \min(e / E, 1))\big)

    Args:
        epoch: :math:`e \ge 0`, the epoch; or the step, if ``num_epochs`` is in steps.
        num_epochs: :math:`E > 0`, when full strength is reached; 10 in the paper.

    Returns:
        The strength in [0, 1], float32.

    Raises:
        ValueError: If ``num_epochs`` is not positive.

    Examples:
        >>> from kdopt import losses
        >>> print(f"{losses.ctkd_reversal(5):.2f} {losses.ctkd_reversal(40):.2f}")
        0.50 1.00

    References:
        Li et al., Curriculum Temperature for Knowledge Distillation, AAAI 2023

    Notes:
        The paper's coefficient runs from 0 to -1; here the sign is in
        :func:`ctkd_temperature`.
    """
    if num_epochs <= 0:
        raise ValueError(f"num_epochs must be positive, got {num_epochs}.")
    progress = jnp.clip(jnp.asarray(epoch, jnp.float32) / num_epochs, 0.0, 1.0)
    return (1 - jnp.cos(jnp.pi * progress)) / 2
