"""The objective of a study as a function of its knobs, and the ways to balance it.

All knobs are arguments of the compiled step, so that all settings of a balancer share
one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdlab.study.task import Training
from kdlab.study.trials.space import DISTANCES, RECOMMENDED, Setting, canonicalize
from kdlab.train import update
from kdlab.train.methods import METHODS, Numbers
from kdlab.train.update import Update
from kdopt import losses

Batch = dict[str, Any]
"""``inputs``, ``labels`` and the logits of the ``teacher``."""

LogitsFn = Callable[[Any, Batch], jax.Array]
"""Maps parameters and a batch to the logits of the student, ``[b, ..., c]``."""


class Knobs(NamedTuple):
    """The numeric values of a setting.

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
        """Converts a canonical setting; knobs that it leaves out have no effect."""
        full = RECOMMENDED | canonicalize(setting)
        return cls(
            jnp.asarray(full["alpha"], jnp.float32),
            jnp.asarray(DISTANCES.index(full["distance"]), jnp.int32),
            jnp.asarray(full["tau_teacher"], jnp.float32),
            jnp.asarray(full["tau_student"], jnp.float32),
        )


def compute_losses(
    logits: jax.Array, batch: Batch, knobs: Knobs
) -> tuple[jax.Array, jax.Array]:
    """Computes both losses at the student's logits, without weights.

    Both leave out tokens whose label is no class.

    Args:
        logits: ``[b, ..., c]``.
        batch: The batch; its labels have the shape ``[b, ...]``, or ``[b, c]`` if they
            are probabilities.
        knobs: The knobs.
    """
    labels = batch["labels"]
    task = losses.cross_entropy(logits, labels)
    per_token = 1 < labels.ndim < logits.ndim
    known = labels >= 0 if per_token else None
    # All distances, so that there is one program; their cost is negligible.
    distances = [
        losses.soft_distance(
            logits,
            batch["teacher"],
            kind=kind,
            tau_student=knobs.tau_student,
            tau_teacher=knobs.tau_teacher,
            sample_weights=known,
        )
        for kind in ("ce", "kl", "mse")
    ]
    return task, jnp.stack(distances)[knobs.distance]


METHOD_OF = {
    "fixed": "kd",
    "dynamic_lambda": "dynamic_lambda",
    "min_norm": "min_norm",
    "dto_kd": "dto_kd_shared",
    "dot": "dot",
}
"""Methods by the names that a study gives to its balancers."""


def make_update(
    logits_fn: LogitsFn, balancer: str, knobs: Knobs, training: Training, steps: int
) -> Update:
    """Makes the update of a balancer, given knobs and an optimiser.

    Args:
        logits_fn: Maps parameters and a batch to logits ``[b, ..., c]``.
        balancer: One of ``BALANCERS``.
        knobs: The knobs; may be traced.
        training: How the network is trained.
        steps: Number of steps of the training, for the learning-rate schedule.
    """
    rate, rising = training.learning_rate, round(training.warmup * steps)
    schedule = optax.cosine_decay_schedule(rate, steps)
    if rising:
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, rising, steps)
    numbers = Numbers(
        weights=(1 - knobs.alpha, knobs.alpha),
        weight_decay=training.weight_decay,
        optimizer=training.optimizer,
    )
    plan = METHODS[METHOD_OF[balancer]](numbers, schedule)

    def head(params: Any, logits: jax.Array, batch: Batch) -> tuple:
        del params
        return compute_losses(logits, batch, knobs)

    return update.make_update(plan, logits_fn, head)
