"""Distillation of vision transformers: DeiT's token and VkD's mean of the patches.

A network with a distillation head learns from the teacher by that head, and from the
labels by the other one. A network without it uses its only head for both.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses import projectors
from kdlab.losses.base import Batch, KdLoss, Setting, teacher_outputs
from kdlab.models import Outputs
from kdopt import losses

SRD_EPS = 1e-5


class TokenLoss(KdLoss):
    """A loss on the logits of the distillation head."""

    own_heads = True

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return distillation_logits(student)


class DeitHard(TokenLoss):
    """Cross-entropy with the class that the teacher prefers."""

    weights = (0.5, 0.5)

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        del logits
        decided = jnp.argmax(teacher_outputs(batch).logits, axis=-1)
        return losses.cross_entropy(compared, decided, sample_weights=batch.weights)


class DeitSoft(TokenLoss):
    r"""Hinton's loss as DeiT's code normalises it, by examples and classes.

    .. math:: L = \frac{\tau^2}{BC} \sum_b \mathrm{KL}(p^t_b \,\|\, p^s_b)

    At 1,000 classes that is a thousandth of the usual mean over examples.
    """

    weights = (0.5, 0.5)

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        del rngs
        self.temperature = setting.distillation.temperature

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        del logits
        theirs = teacher_outputs(batch).logits
        mean = losses.kd(
            compared, theirs, temperature=self.temperature, sample_weights=batch.weights
        )
        return mean / theirs.shape[-1]


class TokenAndFeatureLosses(KdLoss):
    """Two losses: KL divergence at the token, and a distance of features."""

    names = ("kl", "distill")
    weights = (1.0, 1.0, 1.0)
    own_heads = True
    keeps: ClassVar[tuple[str, ...]] = ("tokens",)

    def look(self, outputs: Outputs) -> Any:
        """Returns the features of either network: the mean of the patches."""
        return mean_features(outputs)

    def distance(self, student: Any, teacher: Any, batch: Batch) -> jax.Array:
        """Computes the second loss on the features of both networks."""
        raise NotImplementedError

    def compare(self, student: Outputs, batch: Batch) -> Any:
        del batch
        return distillation_logits(student), self.look(student)

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> Any:
        del logits
        scores, features = compared
        theirs = teacher_outputs(batch)
        kl = losses.kd(
            scores, theirs.logits, temperature=1.0, sample_weights=batch.weights
        )
        return kl, self.distance(features, self.look(theirs), batch)


class VkdTokens(TokenAndFeatureLosses):
    """Two losses: KL divergence at the token, and VkD on the mean of the patches."""

    has_layers = True
    projector_type: ClassVar[type] = projectors.OrthogonalProjector

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        vectors = jax.eval_shape(
            lambda *both: tuple(map(mean_features, both)),
            *(setting.student, setting.teacher),
        )
        self.projector = self.projector_type(*vectors, rngs=rngs)

    def distance(self, student: Any, teacher: Any, batch: Batch) -> jax.Array:
        projected = self.projector(student)
        return losses.vkd(projected, teacher, sample_weights=batch.weights)


class VkdReleased(VkdTokens):
    """The same with the projector of the released code, which is 0 after one step."""

    projector_type = projectors.HouseholderProjector


class Srd(TokenAndFeatureLosses):
    r"""Two losses: KL divergence at the token, and correlations of mean features.

    .. math:: L = \log \Big( \sum_d |c_d - 1|^4 + 10^{-5} \Big), \qquad
        c_d = \frac1B \sum_b \mathrm{BN}(W z^s + b)_{bd} \, \mathrm{BN}(z^t)_{bd}

    where BN standardises over the batch. The logarithm may have any sign: the loss is
    measured from its minimum, which suits methods that compare relative decreases.
    """

    any_batch, has_layers = False, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        widths = (
            jax.eval_shape(mean_features, x).shape[-1]
            for x in (setting.student, setting.teacher)
        )
        self.projector = nnx.Linear(*widths, rngs=rngs)

    def distance(self, student: Any, teacher: Any, batch: Batch) -> jax.Array:
        found = srd(self.projector(student), teacher, batch.weights)
        return found - math.log(SRD_EPS)


def srd(student: jax.Array, teacher: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes the loss of :class:`Srd` on features ``[b, d]``.

    References:
        Miles and Mikolajczyk, `Understanding the Role of the Projector in Knowledge
        Distillation <https://arxiv.org/abs/2303.11098>`_, AAAI 2024
    """
    shares = weights / jnp.maximum(jnp.sum(weights), 1)

    def standardize(x: jax.Array) -> jax.Array:
        gaps = x - (shares @ x)[None]
        variance = shares @ jnp.square(gaps)
        return gaps / jnp.sqrt(jnp.where(variance > 0, variance, 1))[None]

    fixed = jax.lax.stop_gradient(teacher)
    correlations = shares @ (standardize(student) * standardize(fixed))
    return jnp.log(jnp.sum(jnp.square(jnp.square(correlations - 1))) + SRD_EPS)


def distillation_logits(outputs: Outputs) -> jax.Array:
    """Returns the scores of the distillation head, or of the only head."""
    if outputs.distill_logits is None:
        return outputs.logits
    return outputs.distill_logits


def mean_features(outputs: Outputs) -> jax.Array:
    """Returns the mean over the patch tokens or over the last map, ``[b, d]``."""
    if outputs.tokens is None:
        return jnp.mean(outputs.features[-1], (1, 2))
    return jnp.mean(outputs.tokens, 1)
