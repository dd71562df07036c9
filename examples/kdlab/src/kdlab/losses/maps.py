"""Distillation losses on feature maps."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses import adapters
from kdlab.losses.base import Batch, KdLoss, Setting, common_stages, teacher_outputs
from kdlab.models import Outputs
from kdopt import losses

LEAST_VARIANCE = 1e-5


class MapLoss(KdLoss):
    """A loss on the common stages without layers."""

    function: ClassVar[Callable[..., jax.Array]]

    def compare(self, student: Outputs, batch: Batch) -> Sequence:
        return common_stages(student.features, teacher_outputs(batch).features)[0]

    def __call__(self, logits: jax.Array, maps: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = teacher_outputs(batch).features[-len(maps) :]
        return type(self).function(maps, theirs, sample_weights=batch.weights)


class At(MapLoss):
    """Attention transfer."""

    scale, function = 1000.0, staticmethod(losses.at)


class Nst(MapLoss):
    """Distributions of neuron activations."""

    scale, function = 50.0, staticmethod(losses.nst)


class Kdsvd(MapLoss):
    """Singular vectors of the maps."""

    function = staticmethod(losses.kdsvd)


class FitNet(KdLoss):
    """One intermediate map, through a regressor."""

    scale, has_layers = 100.0, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        hints = _hint(setting.student), _hint(setting.teacher)
        self.regressor = adapters.HintRegressor(*hints, rngs=rngs)

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return self.regressor(_hint(student))

    def __call__(self, logits: jax.Array, hint: Any, batch: Batch) -> jax.Array:
        del logits
        return losses.fitnet(
            hint, _hint(teacher_outputs(batch)), sample_weights=batch.weights
        )


class Ofd(KdLoss):
    """Maps before the activation, through connectors, with margins of the teacher."""

    scale, has_layers = 1e-3, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        ours, theirs = setting.student.features, setting.teacher.features
        stages = common_stages(ours, theirs)
        self.connectors = adapters.OfdConnectors(*stages, rngs=rngs)

    def compare(self, student: Outputs, batch: Batch) -> Any:
        theirs = teacher_outputs(batch).preactivations
        return self.connectors(common_stages(student.preactivations, theirs)[0])

    def __call__(self, logits: jax.Array, maps: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = teacher_outputs(batch).preactivations[-len(maps) :]
        margins = [_margin(x, batch.weights) for x in theirs]
        return losses.ofd(maps, theirs, margins, sample_weights=batch.weights)


class Vid(KdLoss):
    """Likelihood of the teacher's maps given the student's."""

    has_layers = True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        ours, theirs = setting.student.features, setting.teacher.features
        stages = common_stages(ours, theirs)
        self.regressor = adapters.VidRegressor(*stages, rngs=rngs)

    def compare(self, student: Outputs, batch: Batch) -> Any:
        theirs = teacher_outputs(batch).features
        return self.regressor(common_stages(student.features, theirs)[0])

    def __call__(self, logits: jax.Array, predicted: Any, batch: Batch) -> jax.Array:
        del logits
        means, scales = predicted
        theirs = teacher_outputs(batch).features[-len(means) :]
        loss = losses.vid(
            means, scales, theirs, eps=LEAST_VARIANCE, sample_weights=batch.weights
        )
        # A log-likelihood may have any sign. Measured from its minimum it suits
        # methods that compare relative decreases.
        return loss - len(means) * jnp.log(LEAST_VARIANCE) / 2


def _hint(outputs: Outputs) -> Any:
    return outputs.features[min(2, len(outputs.features) - 1)]


def _margin(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes OFD's margin from the batch, for teachers with or without BatchNorm."""
    means = jnp.average(x.mean((1, 2)), axis=0, weights=weights)
    squares = jnp.average(jnp.square(x - means).mean((1, 2)), axis=0, weights=weights)
    return losses.ofd_margin(jnp.sqrt(squares), means)
