"""The methods to compare: each makes a plan for one training step.

A method is a function of hyperparameters and a learning-rate schedule. Experiments,
claims and studies use the same table of methods.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

import kdopt
from kdlab.settings.parts import Training
from kdlab.train.decay import DECAYED


class Plan(NamedTuple):
    """How one step computes its gradient and its update.

    Exactly one way applies: ``weights`` (one backward pass), ``balancer`` (at the
    logits, one backward pass), or neither (one backward pass per loss, and ``tx`` takes
    the tuple).

    Attributes:
        tx: The Optax transform of the parameters.
        weights: Maps optimiser state and loss values to the weights of the losses.
        balancer: Balances the gradients at the shared representation.
        reports_weights: Whether the state of ``tx`` holds loss weights to log.
        weigh_heads: With ``balancer``: whether parameters after the representation get
            the weighted sum of the gradients, or the plain one.
    """

    tx: optax.GradientTransformationExtraArgs
    weights: Callable[[optax.OptState, Array], Array] | None = None
    balancer: optax.GradientTransformationExtraArgs | None = None
    reports_weights: bool = True
    weigh_heads: bool = True


class Numbers(NamedTuple):
    """Hyperparameters of the methods; weights may be traced arrays.

    Attributes:
        weights: Fixed weights of the task and of each distillation loss.
        momentum: Momentum of SGD, or b1 of AdamW; DOT's two momenta lie around it.
        delta: Distance of DOT's momenta from ``momentum``.
        matched: Delta of the DOT whose steady-state gains ``momenta`` applies to the
            losses, as in :func:`kdopt.gain_matched_sgd`.
        weight_decay: SGD: L2 penalty; AdamW: decoupled weight decay.
        optimizer: Optimiser applied after the method.
        nesterov: Whether to use Nesterov momentum.
        clip: Maximum norm of the combined gradient; None: no clipping.
        reach: Maps parameters to masks of those that each loss reaches; None: each
            loss reaches all.
        trunk: Maps parameters to the mask of those that methods with a Gram matrix
            balance; the gradients of the others are summed. None: they balance all.
        decayed: Maps parameters to the mask of those that AdamW decays; None: all.
    """

    weights: tuple[Any, ...] = (0.1, 0.9)
    momentum: float = 0.9
    delta: float = 0.075
    matched: float = 0.0
    weight_decay: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    nesterov: bool = False
    clip: float | None = None
    reach: Callable[[Any], Any] | None = None
    trunk: Callable[[Any], Any] | None = None
    decayed: Callable[[Any], Any] | None = None


Method = Callable[[Numbers, optax.Schedule], Plan]


def make_numbers(training: Training, **others: Any) -> Numbers:
    """Returns the hyperparameters of a training.

    Args:
        training: The settings.
        **others: Fields of :class:`Numbers` that are not among the settings.
    """
    names = ("momentum", "weight_decay", "optimizer", "nesterov", "clip")
    return Numbers(
        **{name: getattr(training, name) for name in names},
        decayed=DECAYED[training.decayed],
        **others,
    )


def make_optimizer(
    numbers: Numbers, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Makes the optimiser of the combined gradient, shared by all methods."""
    clip = [] if numbers.clip is None else [optax.clip_by_global_norm(numbers.clip)]
    if numbers.optimizer == "adamw":
        return optax.chain(
            *clip,
            optax.adamw(
                schedule,
                b1=numbers.momentum,
                weight_decay=numbers.weight_decay,
                mask=numbers.decayed,
                nesterov=numbers.nesterov,
            ),
        )
    return optax.chain(
        *clip,
        optax.add_decayed_weights(numbers.weight_decay),
        optax.sgd(schedule, momentum=numbers.momentum, nesterov=numbers.nesterov),
    )


def labels_only(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Trains on the task loss alone, without a teacher."""
    return Plan(optax.chain(make_optimizer(numbers, schedule)), weights=_task_only)


def kd(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Sums both losses with fixed weights."""
    tx = optax.chain(make_optimizer(numbers, schedule))
    return Plan(tx, weights=lambda _, v: jnp.array(numbers.weights, v.dtype))


def dot(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Keeps separate momenta; SGD's weight decay goes to the task's."""
    task, distill = _pair("dot", numbers)
    weighted = kdopt.each(optax.scale(task), optax.scale(distill))
    momentum, delta, decay = numbers.momentum, numbers.delta, numbers.weight_decay
    shared = {"nesterov": numbers.nesterov, "reach": numbers.reach}
    if numbers.optimizer == "adamw":
        adamw = kdopt.dot_adamw(
            schedule,
            momentum,
            weight_decay=decay,
            mask=numbers.decayed,
            delta=delta,
            **shared,
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
    """Gives all losses the same relative decrease, from all parameters' gradients."""
    balancer = kdopt.dto_kd(num_losses=len(numbers.weights), rescale="convex")
    return _balanced(balancer, numbers, schedule)


def dto_kd_shared(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Gives all losses the same relative decrease, from gradients at the logits."""
    tx = optax.chain(_total(numbers), make_optimizer(numbers, schedule))
    balancer = kdopt.dto_kd(num_losses=len(numbers.weights), rescale="convex")
    return Plan(tx, balancer=balancer, weigh_heads=numbers.trunk is None)


def dto_kd_amortized(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Gives all losses the same relative decrease, learned from the loss values."""
    learned = kdopt.dto_kd_amortized(num_losses=len(numbers.weights))
    tx = optax.chain(make_optimizer(numbers, schedule), learned)
    return Plan(tx, weights=kdopt.loss_weights)


def dynamic_lambda(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Moves the fixed weight just far enough that neither loss rises."""
    task, distill = _pair("dynamic_lambda", numbers)
    balancer = kdopt.dynamic_lambda(policy="safe", lambda_=distill / (task + distill))
    return _balanced(balancer, numbers, schedule)


def min_norm(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Steps along the combination of least norm (multiple-gradient descent)."""
    balancer = _on_trunk(kdopt.min_norm(num_losses=len(numbers.weights)), numbers)
    return Plan(optax.chain(balancer, make_optimizer(numbers, schedule)))


def momenta(numbers: Numbers, schedule: optax.Schedule) -> Plan:
    """Combines fixed weights and DOT, with all numbers in the optimiser state.

    One compiled step then serves any weights, ``delta`` and ``matched``; with both 0 it
    is plain SGD with momentum. The unweighted losses are monitored.
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
    """Weights the task 1 and any other loss 0."""
    return jnp.zeros_like(values).at[0].set(1.0)


def _balanced(
    balancer: optax.GradientTransformationExtraArgs,
    numbers: Numbers,
    schedule: optax.Schedule,
) -> Plan:
    """Balances the gradients of the trunk at the scale of the fixed weights."""
    balancer = _on_trunk(balancer, numbers)
    return Plan(
        optax.chain(balancer, _total(numbers), make_optimizer(numbers, schedule))
    )


def _on_trunk(
    balancer: optax.GradientTransformationExtraArgs, numbers: Numbers
) -> optax.GradientTransformationExtraArgs:
    return (
        balancer if numbers.trunk is None else kdopt.restrict(balancer, numbers.trunk)
    )


def _pair(method: str, numbers: Numbers) -> tuple[Any, ...]:
    """Returns the weights of a method of two losses."""
    if len(numbers.weights) != 2:
        raise ValueError(
            f"{method} balances two losses, but this --loss gives "
            f"{len(numbers.weights)} with the task: leave {method} out of --methods."
        )
    return numbers.weights


def _total(numbers: Numbers) -> optax.GradientTransformation:
    """Scales weights that sum to 1 to the sum of the fixed weights.

    At the same learning rate, methods then differ in the balance alone.
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
"""Methods by name, in the order of :data:`kdlab.settings.config.METHODS`."""

ALL_METHODS = METHODS | {"momenta": momenta}
"""Also includes the method with which the claims train most of their arms."""
