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
from examples.distill.study.space import DISTANCES, RECOMMENDED, Setting
from kdopt import losses

MOMENTUM, DELTA = 0.9, 0.075

Batch = dict[str, Any]
"""``inputs``, ``labels`` and the logits of the ``teacher``."""


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
        full = RECOMMENDED | setting
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


def make_update(
    logits_fn: Callable[[Any, Batch], jax.Array],
    balancer: str,
    knobs: Knobs,
    *,
    optimizer: str,
    schedule: optax.Schedule,
    weight_decay: float,
) -> Update:
    """Binds a balancer, the knobs and an optimiser.

    ``dto_kd`` balances at the logits, in one backward pass; ``dynamic_lambda`` and
    ``dot`` take the gradients of all parameters.

    Args:
        logits_fn: From parameters and batch to logits ``[b, c]``.
        balancer: One of ``BALANCERS``.
        knobs: May be traced.
        optimizer: ``adamw`` or ``sgd`` with momentum 0.9.
        schedule: Of the learning rate.
        weight_decay: As in :class:`~examples.distill.study.tasks.Training`.
    """
    adam = optimizer == "adamw"
    decay = optax.add_decayed_weights(weight_decay)
    shares = jnp.stack([1 - knobs.alpha, knobs.alpha])
    plain = optax.chain(
        optax.adamw(schedule, weight_decay=weight_decay)
        if adam
        else optax.chain(decay, optax.sgd(schedule, momentum=MOMENTUM))
    )

    def losses_fn(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return pair(logits_fn(params, batch), batch, knobs)

    def by_parameters(tx: optax.GradientTransformationExtraArgs) -> Update:
        def apply(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
            values, grads = kdopt.value_and_grads(losses_fn)(params, batch)
            updates, state = tx.update(grads, state, params, values=values)
            return optax.apply_updates(params, updates), state

        return Update(tx.init, apply)

    if balancer == "dynamic_lambda":
        tx = kdopt.dynamic_lambda(policy="safe", lambda_=knobs.alpha)
        return by_parameters(optax.chain(tx, plain))
    if balancer == "dot":
        scaled = kdopt.each(optax.scale(shares[0]), optax.scale(shares[1]))
        if adam:
            rest = kdopt.dot_adamw(schedule, weight_decay=weight_decay, delta=DELTA)
            return by_parameters(optax.chain(scaled, rest))
        in_task = kdopt.each(decay, optax.identity())
        rate = optax.scale_by_learning_rate(schedule)
        dot = kdopt.dot(MOMENTUM, DELTA)
        return by_parameters(optax.chain(scaled, in_task, dot, rate))

    def at_logits(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        state, inner = state
        shared = kdopt.value_and_shared_grad(logits_fn, head, dto_kd)
        _, grads, inner = shared(params, batch, state=inner)
        updates, state = plain.update(grads, state, params)
        return optax.apply_updates(params, updates), (state, inner)

    def head(params: Any, logits: jax.Array, batch: Batch) -> tuple:
        del params
        return pair(logits, batch, knobs)

    def fixed(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        weighted = kdopt.value_and_weighted_grad(losses_fn)
        _, grads = weighted(params, batch, weights=shares)
        updates, state = plain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    if balancer == "dto_kd":
        dto_kd = kdopt.dto_kd(rescale="convex")
        return Update(lambda p: (plain.init(p), dto_kd.init(p)), at_logits)
    return Update(plain.init, fixed)
