"""DOT: the distillation-oriented trainer."""

from collections.abc import Sequence
from typing import Any

import jax
import optax

from kdopt._typing import Balancer
from kdopt.balancers._reach import Reach, plus
from kdopt.balancers._streams import streams


def dot(
    momentum: optax.ScalarOrSchedule = 0.9,
    delta: optax.ScalarOrSchedule = 0.075,
    *,
    dampening: float | jax.Array | Sequence[float] = 0.0,
    nesterov: bool | Sequence[bool] = False,
    normalize: bool = False,
    accumulator_dtype: Any = None,
    reach: Reach | None = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Keeps separate momentum buffers for the task and the distillation gradient.

    .. math::
        v_{task} &\leftarrow g_{task} + (\mu - \Delta) \, v_{task} \\
        v_{dist} &\leftarrow g_{dist} + (\mu + \Delta) \, v_{dist} \\
        u &= v_{task} + v_{dist}

    The distillation gradient is remembered for longer, so that it leads. To weight the
    losses by constants, multiply them. The paper uses :math:`\mu = 0.9` and
    :math:`\Delta` of 0.075 (CIFAR-100, Tiny-ImageNet) or 0.09 (ImageNet).

    Args:
        momentum: :math:`\mu`, a number or a schedule.
        delta: :math:`\Delta`, a number or a schedule; negative values favour the task.
        dampening: Gradients after the first step are multiplied by 1 - dampening; a
            number or one per loss.
        nesterov: Whether a stream looks ahead; a bool or one per loss.
        normalize: Whether buffers are averages, so that Delta changes how long a
            gradient is remembered but not its total contribution.
        accumulator_dtype: Dtype of the buffers; by default that of the parameters.
        reach: Which parameters each loss reaches, a pair of trees of bools; what only
            one loss reaches moves with plain :math:`\mu`. See :func:`kdopt.streams`.
        axis_name: Mesh axis over which the update is averaged instead of the gradients:
            one all-reduce instead of two. See :func:`kdopt.streams`.

    Returns:
        A balancer of two losses, task first. Follow it by the learning rate, as with
        ``optax.trace``.

    Raises:
        ValueError: If :math:`\mu \pm \Delta` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dot(momentum=0.9, delta=0.075)
        >>> grads, state = (jnp.ones(1), jnp.ones(1)), tx.init(jnp.zeros(1))
        >>> _, state = tx.update(grads, state)
        >>> _, state = tx.update(grads, state)
        >>> print(state.traces[0], state.traces[1])
        [1.825] [1.975]

    References:
        Zhao et al., `DOT: A Distillation-Oriented Trainer
        <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, Eq. 4-5

    Notes:
        Weight decay: the authors' code adds it to the task gradient, so it accumulates
        in the task buffer. With :func:`kdopt.each`::

            optax.chain(
                kdopt.each(optax.add_decayed_weights(5e-4), optax.identity()),
                kdopt.dot(),
                optax.scale_by_learning_rate(0.05),
            )

        In that code, parameters that only the distillation loss reaches decay in its
        buffer, and only from the second step on.

        A constant gradient is amplified by :math:`1 / (1 - \mu \pm \Delta)`: with the
        defaults 5.7 times for the task and 40 times for distillation, where plain SGD
        amplifies both 10 times. Part of the effect of DOT is this change of weights:
        ``normalize=True`` removes it, :func:`kdopt.gain_matched_sgd` has only it.
    """
    return streams(
        (plus(momentum, delta, -1), plus(momentum, delta, 1)),
        dampening=dampening,
        nesterov=nesterov,
        normalize=normalize,
        accumulator_dtype=accumulator_dtype,
        reach=reach,
        solo_momentum=momentum,
        axis_name=axis_name,
    )
