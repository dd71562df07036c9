"""ReviewKD, ND (norm and direction of features), and both combined."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses import adapters
from kdlab.losses.base import (
    Batch,
    Fixed,
    KdLoss,
    Setting,
    common_stages,
    scale_up,
    teacher_outputs,
    warm_up_fraction,
)
from kdlab.models import Outputs
from kdopt import losses


class ReviewKd(KdLoss):
    """Stages fused from deep to shallow; warmed up."""

    has_layers = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        shapes = jax.eval_shape(_stages, setting.student, setting.teacher)
        # Not the width of the pooled features, which a small CNN makes 784 wide.
        width = min(512, setting.student.features[-1].shape[-1])
        self.fusion = adapters.ReviewFusion(*shapes, width=width, rngs=rngs)
        self.warm_up = warm_up_fraction(setting)

    def compare(self, student: Outputs, batch: Batch) -> Any:
        return self.fusion(_stages(student, teacher_outputs(batch))[0])

    def __call__(self, logits: jax.Array, fused: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = _stages(teacher_outputs(batch), teacher_outputs(batch))[1][
            -len(fused) :
        ]
        loss = losses.hcl(fused, theirs, sample_weights=batch.weights)
        return scale_up(loss, batch, self.warm_up)


class Nd(KdLoss):
    """Norm and direction of the penultimate features."""

    has_layers = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        assert setting.class_means is not None
        vectors = setting.student.pooled, setting.teacher.pooled
        self.projector = adapters.WidthProjector(*vectors, rngs=rngs)
        # A copy: the first step of a run donates its buffers.
        self.means = Fixed(jnp.array(setting.class_means()))

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return self.projector(student.pooled)

    def __call__(self, logits: jax.Array, vector: Any, batch: Batch) -> jax.Array:
        del logits
        return losses.nd(
            vector,
            teacher_outputs(batch).pooled,
            batch.labels,
            self.means[...],
            sample_weights=batch.weights,
        )


class ReviewKdPlusPlus(KdLoss):
    """ReviewKD and ND."""

    has_layers = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        beta = setting.distillation.loss_beta
        self.beta = 1.2 if beta is None else beta
        self.review = ReviewKd(setting, rngs)
        self.direction = Nd(setting, rngs)

    def compare(self, student: Outputs, batch: Batch) -> Any:
        fused = self.review.compare(student, batch)
        return fused, self.direction.compare(student, batch)

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        fused, vector = compared
        review = self.review(logits, fused, batch)
        return self.beta * review + self.direction(logits, vector, batch)


def _stages(student: Outputs, teacher: Outputs) -> tuple[list, list]:
    """Returns the stages, followed by the pooled features as a map of one pixel."""
    ours, theirs = common_stages(student.features, teacher.preactivations)
    vectors = (x.pooled[:, None, None, :] for x in (student, teacher))
    return [*ours, next(vectors)], [*theirs, next(vectors)]
