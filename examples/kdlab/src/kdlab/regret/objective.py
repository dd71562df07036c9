"""The numbers of one training: arguments of compiled steps, so that they share them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdlab.models import Outputs
from kdlab.regret.situation import LossKind
from kdopt import losses

GRID = (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
"""The fixed weights of the distillation loss, and those of the probe heads."""


class Knobs(NamedTuple):
    """Numbers of a training, float32 scalars.

    Attributes:
        weight: Weight of the distillation loss, where it is fixed; that of the task
            is the rest to 1.
        learning_rate: Learning rate of the first step; it falls to 0 along a cosine.
        steps: Number of steps.
        temperature: Temperature of the KL divergence.
        scale: Factor of the distillation loss.
        limit: Upper limit of the task loss, where there is one.
    """

    weight: Any
    learning_rate: Any
    steps: Any
    temperature: Any
    scale: Any
    limit: Any

    def schedule(self, count: Any) -> jax.Array:
        """The learning rate after a number of steps."""
        return self.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * count / self.steps))


class Batch(NamedTuple):
    """Examples of a step, or the reference examples: those have no teacher.

    Attributes:
        inputs: Inputs of the network.
        labels: Classes, ``[b]``.
        logits: Logits of the teacher, ``[b, c]``.
        features: Features of the teacher, ``[b, d]``.
    """

    inputs: Any
    labels: Any
    logits: Any = None
    features: Any = None


def compute_losses(
    kind: LossKind, outputs: Outputs, batch: Batch, knobs: Knobs
) -> tuple[jax.Array, jax.Array]:
    """Computes the task loss and the distillation loss of a student's outputs."""
    task = losses.cross_entropy(outputs.logits, batch.labels)
    match kind:
        case "kl":
            distill = losses.soft_distance(
                outputs.logits,
                batch.logits,
                kind="kl",
                tau_student=knobs.temperature,
                tau_teacher=knobs.temperature,
            )
        case "mse":
            distill = losses.soft_distance(outputs.logits, batch.logits, kind="mse")
        case "features":
            distill = losses.rkd(outputs.pooled, batch.features)
    return task, knobs.scale * distill
