"""Distillation losses on penultimate features and on relations between examples."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses import adapters, projectors
from kdlab.losses.base import Batch, Fixed, KdLoss, Setting, teacher_outputs
from kdlab.models import Outputs
from kdopt import losses


class PooledLoss(KdLoss):
    """A loss on penultimate features without layers."""

    any_batch = False
    function: ClassVar[Callable[..., jax.Array]]

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return student.pooled

    def __call__(self, logits: jax.Array, pooled: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = teacher_outputs(batch).pooled
        return type(self).function(pooled, theirs, sample_weights=batch.weights)


class Rkd(PooledLoss):
    """Distances and angles between examples."""

    function = staticmethod(losses.rkd)


class Pkt(PooledLoss):
    """Probabilities of being neighbours."""

    scale, function = 30000.0, staticmethod(losses.pkt)


class Vkd(KdLoss):
    """Penultimate features through an orthogonal projection."""

    has_layers = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        vectors = setting.student.pooled, setting.teacher.pooled
        self.projector = projectors.OrthogonalProjector(*vectors, rngs=rngs)

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return self.projector(student.pooled)

    def __call__(self, logits: jax.Array, pooled: Any, batch: Batch) -> jax.Array:
        del logits
        return losses.vkd(
            pooled, teacher_outputs(batch).pooled, sample_weights=batch.weights
        )


class Sp(KdLoss):
    """Similarities between examples in the last map."""

    scale, any_batch = 3000.0, False

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return student.features[-1]

    def __call__(self, logits: jax.Array, last: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = teacher_outputs(batch).features[-1]
        return losses.sp(last, theirs, sample_weights=batch.weights)


class Crd(KdLoss):
    """Contrast with a memory of all training images."""

    scale, any_batch, has_layers = 0.8, False, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        vectors = setting.student.pooled, setting.teacher.pooled
        self.embeddings = adapters.CrdEmbeddings(*vectors, rngs=rngs)
        labels = jnp.array(setting.labels)
        self.memory = Fixed(losses.crd_init(rngs.memory(), labels))

    def compare(self, student: Outputs, batch: Batch) -> Any:
        """Embeds both and updates the memory; the loss reads the previous memory."""
        embedded = self.embeddings(student.pooled, teacher_outputs(batch).pooled)
        self.memory.set_value(self._contrast(embedded, batch)[1])
        return embedded

    def __call__(self, logits: jax.Array, embedded: Any, batch: Batch) -> jax.Array:
        del logits
        return self._contrast(embedded, batch)[0]

    def _contrast(self, embedded: Any, batch: Batch) -> Any:
        memory = self.memory.get_value()
        student, teacher = embedded
        return losses.crd(
            student,
            teacher,
            batch.indices,
            memory,
            batch.key,
            num_negatives=min(16384, len(memory.labels)),
            sample_weights=batch.weights,
        )
