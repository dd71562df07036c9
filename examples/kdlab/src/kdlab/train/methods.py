"""The methods that are compared: each makes a plan for one training step.

A method is a function of numbers and of a schedule of the learning rate. Experiments,
claims and studies take them from the same table.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

import kdopt
from kdlab.settings.parts import Training


class Plan(NamedTuple):
    """How one step gets its gradient and its update.

    Exactly one way applies: ``weights`` (one backward pass), ``balancer`` (at the
    logits, one backward pass), or neither (one backward pass per loss, and ``tx`` takes
    the tuple).

    Attributes:
        tx: The Optax transform of the parameters.
        weights: From optimiser state and loss values to the weights of the losses.
        balancer: Balances the gradients at the logits.
        reports_weights: Whether the state of ``tx`` holds weights to log.
    """

    tx: optax.GradientTransformationExtraArgs
    weights: Callable[[optax.OptState, Array], Array] | None = None
    balancer: optax.GradientTransformationExtraArgs | None = None
    reports_weights: bool = True


class Numbers(NamedTuple):
    """What the methods are given; weights may be traced arrays.

    Attributes:
        weights: Weights of the task and of the distillation loss, where they are fixed.
        momentum: Momentum of SGD, or the first decay of AdamW; the centre of DOT's two.
        delta: Difference of DOT's momenta from the centre.
        matched: The Delta of DOT whose steady-state gains ``momenta`` gives the
            losses, as in :func:`kdopt.gain_matched_sgd`.
        weight_decay: SGD: L2 penalty; AdamW: decoupled decay.
        optimizer: The optimiser after the method.
        nesterov: Whether the momentum is Nesterov's.
        clip: Greatest norm of the combined gradient; None: any.
        reach: From parameters to the masks of those that each loss reaches; None: each
            loss reaches all.
    """

    weights: tuple[Any, Any] = (0.1, 0.9)
    momentum: float = 0.9
    delta: float = 0.075
    matched: float = 0.0
    weight_decay: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    nesterov: bool = False
    clip: float | None = None
    reach: Callable[[Any], Any] | None = None


Method = Callable[[Numbers, optax.Schedule], Plan]


def numbers(training: Training, **others: Any) -> Numbers:
    """The numbers of a training.

    Args:
        training: How the parameters move.
        **others: Fields of :class:`Numbers` that the training does not say.
    """
    names = ("momentum", "weight_decay", "optimizer", "nesterov", "clip")
    return Numbers(**{name: getattr(training, name) for name in names}, **others)


def learning_rate(training: Training, steps_per_epoch: int) -> optax.Schedule:
    r"""The learning rate at each step.

    .. math::
        \gamma_{steps}(e) = \gamma \, r^{\#\{d \,:\, e \geq d\}} \qquad
        \gamma_{cosine}(e) = \frac{\gamma}{2} (1 + \cos \pi e / E)

    with :math:`e` the number of epochs that are done. A warm-up replaces the beginning
    of the steps and shortens the cosine.

    Args:
        training: The settings.
        steps_per_epoch: Steps in an epoch.

    Returns:
        From the number of steps done to the rate.
    """
    warm = round(training.warmup_epochs * steps_per_epoch)
    if training.schedule == "steps":
        falls = {
            epoch * steps_per_epoch - warm: training.decay_rate
            for epoch in training.decay_epochs
        }
        rest = optax.piecewise_constant_schedule(training.learning_rate, falls)
    else:
        steps = training.epochs * steps_per_epoch - warm
        rest = optax.cosine_decay_schedule(training.learning_rate, steps)
    if not warm:
        return rest
    rise = optax.linear_schedule(0.0, training.learning_rate, warm)
    return optax.join_schedules([rise, rest], [warm])


def optimizer(
    numbers: Numbers, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Makes the optimiser that all methods share, on the combined gradient."""
    clip = [] if numbers.clip is None else [optax.clip_by_global_norm(numbers.clip)]
    if numbers.optimizer == "adamw":
        return optax.chain(
            *clip,
            optax.adamw(
                schedule,
                b1=numbers.momentum,
                weight_decay=numbers.weight_decay,
                nesterov=numbers.nesterov,
            ),
        )
    return optax.chain(
        *clip,
        optax.add_decayed_weights(numbers.weight_decay),
        optax.sgd(schedule, momentum=numbers.momentum, nesterov=numbers.nesterov),
    )


def labels_only(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """No teacher: the task loss alone."""
    return Plan(optax.chain(optimizer(numbers, schedule)), weights=_task_only)


def kd(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Both losses with fixed weights."""
    tx = optax.chain(optimizer(numbers, schedule))
    return Plan(tx, weights=lambda _, v: jnp.array(numbers.weights, v.dtype))


def dot(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Fixed weights, separate momenta; SGD's weight decay is in the task stream."""
    task, distill = numbers.weights
    weighted = kdopt.each(optax.scale(task), optax.scale(distill))
    momentum, delta, decay = numbers.momentum, numbers.delta, numbers.weight_decay
    shared = {"nesterov": numbers.nesterov, "reach": numbers.reach}
    if numbers.optimizer == "adamw":
        adamw = kdopt.dot_adamw(
            schedule, momentum, weight_decay=decay, delta=delta, **shared
        )
        return Plan(optax.chain(weighted, adamw), reports_weights=False)
    tx = optax.chain(
        weighted,
        kdopt.each(optax.add_decayed_weights(decay), optax.identity()),
        kdopt.dot(momentum, delta, **shared),
        optax.scale_by_learning_rate(schedule),
    )
    return Plan(tx, reports_weights=False)


def dto_kd(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, from the gradients of all parameters."""
    balancer = kdopt.dto_kd(rescale="convex")
    return Plan(optax.chain(balancer, _total(numbers), optimizer(numbers, schedule)))


def dto_kd_shared(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, from the gradients at the logits."""
    tx = optax.chain(_total(numbers), optimizer(numbers, schedule))
    return Plan(tx, balancer=kdopt.dto_kd(rescale="convex"))


def dto_kd_amortized(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, learned from the loss values."""
    tx = optax.chain(optimizer(numbers, schedule), kdopt.dto_kd_amortized())
    return Plan(tx, weights=kdopt.loss_weights)


def dynamic_lambda(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """The fixed weight, moved only as far as keeps both losses from rising."""
    share = numbers.weights[1] / sum(numbers.weights)
    balancer = kdopt.dynamic_lambda(policy="safe", lambda_=share)
    return Plan(optax.chain(balancer, _total(numbers), optimizer(numbers, schedule)))


def min_norm(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Multiple-gradient descent."""
    return Plan(optax.chain(kdopt.min_norm(), optimizer(numbers, schedule)))


def momenta(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Fixed weights and DOT with every number in the state of the optimiser.

    So one compiled step serves any weights, ``delta`` and ``matched``; 0 for both is
    plain SGD with momentum. The losses are observed unweighted.
    """
    mu = numbers.momentum
    gains = [(1 - mu) / (1 - mu + sign * numbers.matched) for sign in (1, -1)]
    scale = optax.inject_hyperparams(optax.scale)
    options = ("dampening", "nesterov", "normalize", "accumulator_dtype")
    dot = optax.inject_hyperparams(kdopt.dot, static_args=(*options, "reach"))
    streams = optax.chain(
        kdopt.each(*(scale(step_size=weight) for weight in numbers.weights)),
        kdopt.each(optax.add_decayed_weights(numbers.weight_decay), optax.identity()),
        kdopt.each(*(scale(step_size=gain) for gain in gains)),
        dot(momentum=mu, delta=numbers.delta),
    )
    tx = optax.chain(
        kdopt.monitor(streams, decay=0.0), optax.scale_by_learning_rate(schedule)
    )
    return Plan(tx, reports_weights=False)


def _task_only(_: optax.OptState, values: Array) -> Array:
    """One for the task; there may be no other loss."""
    return jnp.zeros_like(values).at[0].set(1.0)


def _total(numbers: Numbers) -> optax.GradientTransformation:
    """Scales weights of sum one to the sum of the fixed ones.

    So methods at one learning rate differ in the balance alone.
    """
    return optax.scale(sum(numbers.weights))


METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        labels_only,
        kd,
        dot,
        dto_kd,
        dto_kd_shared,
        dto_kd_amortized,
        dynamic_lambda,
        min_norm,
    )
}
"""By name: those of :data:`kdlab.settings.config.METHODS`, in that order."""

ALL_METHODS = METHODS | {"momenta": momenta}
"""Also the one that the claims train most of their arms with."""
