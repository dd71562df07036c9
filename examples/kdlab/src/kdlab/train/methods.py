"""The methods that are compared: each is a plan for one training step."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

import kdopt

if TYPE_CHECKING:
    from kdlab.settings.config import Config


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


def fixed(*weights: float) -> Callable[[optax.OptState, Array], Array]:
    """Weights that never change."""
    return lambda _, values: jnp.array(weights, values.dtype)


def learning_rate(config: "Config", steps_per_epoch: int) -> optax.Schedule:
    r"""The learning rate at each step.

    .. math::
        \gamma_{steps}(e) = \gamma \, r^{\#\{d \,:\, e \geq d\}} \qquad
        \gamma_{cosine}(e) = \frac{\gamma}{2} (1 + \cos \pi e / E)

    with :math:`e` the number of epochs that are done. A warm-up replaces the beginning
    of the steps and shortens the cosine.

    Args:
        config: The settings.
        steps_per_epoch: Steps in an epoch.

    Returns:
        From the number of steps done to the rate.
    """
    warm = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "steps":
        falls = {
            epoch * steps_per_epoch - warm: config.decay_rate
            for epoch in config.decay_epochs
        }
        rest = optax.piecewise_constant_schedule(config.learning_rate, falls)
    else:
        steps = config.epochs * steps_per_epoch - warm
        rest = optax.cosine_decay_schedule(config.learning_rate, steps)
    if not warm:
        return rest
    rise = optax.linear_schedule(0.0, config.learning_rate, warm)
    return optax.join_schedules([rise, rest], [warm])


def optimizer(
    config: "Config", schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimiser that all methods share, on the combined gradient."""
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    if config.optimizer == "adamw":
        return optax.chain(
            *clip,
            optax.adamw(
                schedule,
                b1=config.momentum,
                weight_decay=config.weight_decay,
                nesterov=config.nesterov,
            ),
        )
    return optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
    )


def _task_only(_: optax.OptState, values: Array) -> Array:
    """One for the task; there may be no other loss."""
    return jnp.zeros_like(values).at[0].set(1.0)


def _total(config: "Config") -> optax.GradientTransformation:
    """Takes weights of sum one to the sum of the fixed ones.

    So that methods at one learning rate differ in the balance alone.
    """
    return optax.scale(sum(config.weights))


def labels_only(config: "Config", schedule: optax.Schedule) -> Plan:
    """No teacher: the task loss alone."""
    return Plan(optax.chain(optimizer(config, schedule)), weights=_task_only)


def kd(config: "Config", schedule: optax.Schedule) -> Plan:
    """Both losses with fixed weights."""
    return Plan(
        optax.chain(optimizer(config, schedule)), weights=fixed(*config.weights)
    )


def dot(config: "Config", schedule: optax.Schedule) -> Plan:
    """Fixed weights, separate momenta; SGD's weight decay is in the task stream."""
    task, distill = config.weights
    weighted = kdopt.each(optax.scale(task), optax.scale(distill))
    momentum, delta, decay = config.momentum, config.delta, config.weight_decay
    shared = {"nesterov": config.nesterov, "reach": config.kd_loss.reach}
    if config.optimizer == "adamw":
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


def dto_kd(config: "Config", schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, from the gradients of all parameters."""
    balancer = kdopt.dto_kd(rescale="convex")
    return Plan(optax.chain(balancer, _total(config), optimizer(config, schedule)))


def dto_kd_shared(config: "Config", schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, from the gradients at the logits."""
    tx = optax.chain(_total(config), optimizer(config, schedule))
    return Plan(tx, balancer=kdopt.dto_kd(rescale="convex"))


def dto_kd_amortized(config: "Config", schedule: optax.Schedule) -> Plan:
    """Equal relative decrease, learned from the loss values."""
    tx = optax.chain(optimizer(config, schedule), kdopt.dto_kd_amortized())
    return Plan(tx, weights=kdopt.loss_weights)


def dynamic_lambda(config: "Config", schedule: optax.Schedule) -> Plan:
    """The fixed weight, moved only as far as keeps both losses from rising."""
    share = config.weights[1] / sum(config.weights)
    balancer = kdopt.dynamic_lambda(policy="safe", lambda_=share)
    return Plan(optax.chain(balancer, _total(config), optimizer(config, schedule)))


def min_norm(config: "Config", schedule: optax.Schedule) -> Plan:
    """Multiple-gradient descent."""
    return Plan(optax.chain(kdopt.min_norm(), optimizer(config, schedule)))


METHODS: dict[str, Callable[["Config", optax.Schedule], Plan]] = {
    plan.__name__: plan
    for plan in (
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
