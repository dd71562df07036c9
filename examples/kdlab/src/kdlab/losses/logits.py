"""Distillation losses on logits."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses.base import (
    Batch,
    KdLoss,
    Setting,
    scale_up,
    teacher_outputs,
    warm_up_fraction,
)
from kdopt import losses

CURRICULUM = 10 / 240  # fraction of the training over which CTKD's reversal sets in


class Kd(KdLoss):
    """Hinton's loss at one temperature."""

    weights, on_logits = (0.1, 0.9), True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        del rngs
        self.temperature = setting.distillation.temperature

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        return losses.kd(
            logits,
            teacher_outputs(batch).logits,
            temperature=self.temperature,
            sample_weights=batch.weights,
        )


class SoftDistance(KdLoss):
    """A distance of softened logits with one temperature per network."""

    weights, on_logits = (0.1, 0.9), True
    kind: ClassVar[Literal["ce", "kl", "mse"]]

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        del rngs
        own = setting.distillation.student_temperature
        self.tau_teacher = setting.distillation.temperature
        self.tau_student = self.tau_teacher if own is None else own

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        return losses.soft_distance(
            logits,
            teacher_outputs(batch).logits,
            kind=self.kind,
            tau_student=self.tau_student,
            tau_teacher=self.tau_teacher,
            sample_weights=batch.weights,
        )


class SoftCe(SoftDistance):
    """Cross-entropy of softened probabilities."""

    kind = "ce"


class SoftKl(SoftDistance):
    """Kullback-Leibler divergence of softened probabilities."""

    kind = "kl"


class SoftMse(SoftDistance):
    """Mean squared difference of scaled logits."""

    kind = "mse"


class KdStandardized(KdLoss):
    """Hinton's loss on standardised logits."""

    weights, on_logits = (0.1, 9.0), True

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        return losses.kd_standardized(
            logits, teacher_outputs(batch).logits, sample_weights=batch.weights
        )


class Dkd(KdLoss):
    """Decoupled losses of target and non-target classes; warmed up."""

    on_logits = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        del rngs
        beta = setting.distillation.loss_beta
        self.beta = 8.0 if beta is None else beta
        self.temperature = setting.distillation.temperature
        self.warm_up = warm_up_fraction(setting)

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        loss = losses.dkd(
            logits,
            teacher_outputs(batch).logits,
            batch.labels,
            beta=self.beta,
            temperature=self.temperature,
            sample_weights=batch.weights,
        )
        return scale_up(loss, batch, self.warm_up)


class Dist(KdLoss):
    """Correlations between and within classes."""

    on_logits = True

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        return losses.dist(
            logits, teacher_outputs(batch).logits, sample_weights=batch.weights
        )


class Mlkd(KdLoss):
    """Multi-level logit distillation: instances, batch and classes."""

    on_logits, any_batch = True, False

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        theirs = (teacher_outputs(batch).logits,)
        return losses.mlkd((logits,), theirs, sample_weights=batch.weights)


class Ctkd(KdLoss):
    """Hinton's loss with an adversarially learned temperature."""

    weights, on_logits, has_layers = (0.1, 0.9), True, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        del setting, rngs
        self.temperature = nnx.Param(jnp.zeros(()))

    def compare(self, student: Any, batch: Batch) -> jax.Array:
        del student, batch
        return self.temperature[...]

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        strength = losses.ctkd_reversal(batch.progress, num_epochs=CURRICULUM)
        return losses.kd(
            logits,
            teacher_outputs(batch).logits,
            temperature=losses.ctkd_temperature(compared, strength),
            sample_weights=batch.weights,
        )


class Tpkd(KdLoss):
    """Probabilities of target and non-target classes."""

    weights, on_logits = (0.0, 1.0), True

    def __call__(self, logits: jax.Array, _: Any, batch: Batch) -> jax.Array:
        theirs = teacher_outputs(batch).logits
        return losses.tpkd(logits, theirs, batch.labels, sample_weights=batch.weights)
