"""Learning rates over the steps of a training."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from kdlab.settings.parts import Training


def make_schedule(training: Training, steps_per_epoch: int) -> optax.Schedule:
    r"""Returns the learning-rate schedule.

    .. math::
        \gamma_{steps}(e) = \gamma \, r^{\#\{d \,:\, e \geq d\}} \qquad
        \gamma_{cosine}(e) = \frac{\gamma}{2} (1 + \cos \pi e / E)

    with :math:`e` the number of completed epochs. A warm-up replaces the beginning of
    the steps and shortens the cosine, which may end at another rate than 0. With
    ``deit`` the cosine is not shortened, and all steps of epoch :math:`e` (from 0) have
    the rate of :math:`\max(e - 1, 0)`, see :func:`deit_rate`.

    Args:
        training: The settings.
        steps_per_epoch: Steps per epoch.

    Returns:
        A function from the number of completed steps to the rate.
    """
    peak = training.learning_rate
    if training.schedule == "deit":

        def rate(step: Any) -> Array:
            return deit_rate(training, jnp.maximum(step // steps_per_epoch - 1, 0))

        return rate
    warm = round(training.warmup_epochs * steps_per_epoch)
    if training.schedule == "steps":
        falls = {
            epoch * steps_per_epoch - warm: training.decay_rate
            for epoch in training.decay_epochs
        }
        rest = optax.piecewise_constant_schedule(peak, falls)
    else:
        steps = training.epochs * steps_per_epoch - warm
        rest = optax.cosine_decay_schedule(peak, steps, training.last_rate / peak)
    if not warm:
        return rest
    rise = optax.linear_schedule(training.warmup_rate, peak, warm)
    return optax.join_schedules([rise, rest], [warm])


def deit_rate(training: Training, epoch: Any) -> Array:
    r"""Returns the rate of timm's cosine after a number of epochs.

    .. math::
        \gamma(e) = \begin{cases}
            \gamma_w + (\gamma - \gamma_w) \, e / E_w & e < E_w \\
            \gamma_0 + \frac{\gamma - \gamma_0}{2} (1 + \cos \pi e / E) & \text{else}
        \end{cases}

    Args:
        training: The settings: ``learning_rate``, ``warmup_rate`` and ``last_rate`` are
            the three rates, ``epochs`` and ``warmup_epochs`` the two durations.
        epoch: :math:`e`.

    Examples:
        >>> training = Training(
        ...     epochs=300, learning_rate=1e-3, warmup_epochs=5.0, warmup_rate=1e-6,
        ...     schedule="deit", last_rate=1e-5,
        ... )
        >>> print(f"{deit_rate(training, 1):.4g} {deit_rate(training, 50):.7g}")
        0.0002008 0.0009336826
    """
    peak, first, last = (
        *(training.learning_rate, training.warmup_rate, training.last_rate),
    )
    share = jnp.asarray(epoch, float) / training.epochs
    falling = last + (peak - last) / 2 * (1 + jnp.cos(jnp.pi * share))
    if not training.warmup_epochs:
        return falling
    rising = first + (peak - first) * jnp.asarray(epoch) / training.warmup_epochs
    return jnp.where(epoch < training.warmup_epochs, rising, falling)
