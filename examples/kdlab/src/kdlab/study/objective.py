"""The objective of a study as a function of numbers, and the ways to balance it.

Every number is an argument of the compiled step, so that all settings of a balancer
share one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import kdopt
from kdlab.study.space import DISTANCES, RECOMMENDED, Setting, canonical
from kdopt import losses

MOMENTUM, DELTA = 0.9, 0.075

Batch = dict[str, Any]
"""``inputs``, ``labels`` and the logits of the ``teacher``."""

LogitsFn = Callable[[Any, Batch], jax.Array]
"""From parameters and batch to the logits of the student, ``[b, c]``."""


class Knobs(NamedTuple):
    """The numeric side of a setting.

    Attributes:
        alpha: Weight of the distillation loss, float32.
        distance: Index into ``DISTANCES``, int32.
        tau_teacher: Temperature of the teacher, float32.
        tau_student: Temperature of the student, float32.
    """

    alpha: jax.Array
    distance: jax.Array
    tau_teacher: jax.Array
    tau_student: jax.Array

    @classmethod
    def of(cls, setting: Setting) -> "Knobs":
        """The numbers of a canonical setting; what it leaves out has no effect."""
        full = RECOMMENDED | canonical(setting)
        return cls(
            jnp.asarray(full["alpha"], jnp.float32),
            jnp.asarray(DISTANCES.index(full["distance"]), jnp.int32),
            jnp.asarray(full["tau_teacher"], jnp.float32),
            jnp.asarray(full["tau_student"], jnp.float32),
        )


def pair(logits: jax.Array, batch: Batch, knobs: Knobs) -> tuple[jax.Array, jax.Array]:
    """The two losses at the student's logits ``[b, c]``, without their weights."""
    task = losses.cross_entropy(logits, batch["labels"])
    # All distances: next to the network they cost nothing, and the program is one.
    distances = [
        losses.soft_distance(
            logits,
            batch["teacher"],
            kind=kind,
            tau_student=knobs.tau_student,
            tau_teacher=knobs.tau_teacher,
        )
        for kind in ("ce", "kl", "mse")
    ]
    return task, jnp.stack(distances)[knobs.distance]


class Update(NamedTuple):
    """How one step changes the parameters.

    Attributes:
        init: From parameters to the state.
        apply: From parameters, state and batch to new parameters and state.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any, Batch], tuple[Any, Any]]


class Optimizer(NamedTuple):
    """What moves the parameters.

    Attributes:
        name: ``adamw``, or ``sgd`` with momentum 0.9.
        schedule: Of the learning rate.
        weight_decay: As in :class:`~kdlab.study.task.Training`.
    """

    name: str
    schedule: optax.Schedule
    weight_decay: float

    def plain(self) -> optax.GradientTransformationExtraArgs:
        """For one gradient."""
        if self.name == "adamw":
            adamw = optax.adamw(self.schedule, weight_decay=self.weight_decay)
            return optax.chain(adamw)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.sgd(self.schedule, momentum=MOMENTUM))

    def dot(self) -> optax.GradientTransformationExtraArgs:
        """For the gradients of task and distillation, with DOT's two momenta."""
        if self.name == "adamw":
            return kdopt.dot_adamw(
                self.schedule, weight_decay=self.weight_decay, delta=DELTA
            )
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(
            kdopt.each(decay, optax.identity()),
            kdopt.dot(MOMENTUM, DELTA),
            optax.scale_by_learning_rate(self.schedule),
        )


def make_update(
    logits_fn: LogitsFn, balancer: str, knobs: Knobs, optimizer: Optimizer
) -> Update:
    """Binds a balancer, the knobs and an optimiser.

    ``dto_kd`` balances at the logits, in one backward pass; the others that balance
    take the gradients of all parameters.

    Args:
        logits_fn: From parameters and batch to logits ``[b, c]``.
        balancer: One of ``BALANCERS``.
        knobs: May be traced.
        optimizer: The optimiser.
    """
    shares = jnp.stack([1 - knobs.alpha, knobs.alpha])
    if balancer == "dto_kd":
        return _at_logits(logits_fn, knobs, optimizer.plain())
    if balancer == "dynamic_lambda":
        safe = kdopt.dynamic_lambda(policy="safe", lambda_=knobs.alpha)
        tx = optax.chain(safe, optimizer.plain())
        return _by_parameters(logits_fn, knobs, tx)
    if balancer == "min_norm":
        tx = optax.chain(kdopt.min_norm(), optimizer.plain())
        return _by_parameters(logits_fn, knobs, tx)
    if balancer == "dot":
        weighted = kdopt.each(optax.scale(shares[0]), optax.scale(shares[1]))
        tx = optax.chain(weighted, optimizer.dot())
        return _by_parameters(logits_fn, knobs, tx)
    return _weighted(logits_fn, knobs, shares, optimizer.plain())


def _losses(logits_fn: LogitsFn, knobs: Knobs) -> Callable[[Any, Batch], tuple]:
    return lambda params, batch: pair(logits_fn(params, batch), batch, knobs)


def _weighted(
    logits_fn: LogitsFn,
    knobs: Knobs,
    shares: jax.Array,
    tx: optax.GradientTransformationExtraArgs,
) -> Update:
    grad_fn = kdopt.value_and_weighted_grad(_losses(logits_fn, knobs))

    def apply(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        _, grads = grad_fn(params, batch, weights=shares)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Update(tx.init, apply)


def _by_parameters(
    logits_fn: LogitsFn, knobs: Knobs, tx: optax.GradientTransformationExtraArgs
) -> Update:
    grad_fn = kdopt.value_and_grads(_losses(logits_fn, knobs))

    def apply(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        values, grads = grad_fn(params, batch)
        updates, state = tx.update(grads, state, params, values=values)
        return optax.apply_updates(params, updates), state

    return Update(tx.init, apply)


def _at_logits(
    logits_fn: LogitsFn, knobs: Knobs, tx: optax.GradientTransformationExtraArgs
) -> Update:
    balancer = kdopt.dto_kd(rescale="convex")

    def head(params: Any, logits: jax.Array, batch: Batch) -> tuple:
        del params
        return pair(logits, batch, knobs)

    grad_fn = kdopt.value_and_shared_grad(logits_fn, head, balancer)

    def apply(params: Any, states: Any, batch: Batch) -> tuple[Any, Any]:
        state, weights = states
        _, grads, weights = grad_fn(params, batch, state=weights)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), (state, weights)

    return Update(lambda params: (tx.init(params), balancer.init(params)), apply)
