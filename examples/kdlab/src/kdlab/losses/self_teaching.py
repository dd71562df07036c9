"""USKD: a student that is its own teacher."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses.base import Batch, KdLoss, Setting
from kdlab.models import Outputs
from kdopt import losses

NON_TARGET, WEAK, SMOOTHING = 0.1, 0.005, 0.1


class Uskd(KdLoss):
    r"""Soft targets from the student itself, without a teacher.

    .. math:: L = L_t + 0.1 L_n + 0.005 L_w

    with the two classes :math:`i` of the largest targets :math:`v_i`, the student's
    probabilities :math:`s` and those of a second classifier :math:`w`, a linear layer
    on the features of the middle stage:

    .. math::
        L_t = -\frac1B \sum_b \sum_i p_{bi} \log s_{bi}, \qquad
        p_{bi} = [v_{bi} > 0] \big(s_{bi}^2 + v_{bi} - \overline{s_i^2}\big)

    :math:`L_n` is the cross-entropy of the other classes' softmax with a distribution
    proportional to 1 / rank, ranked by the sum of both classifiers' probabilities, and
    :math:`L_w` that of the second classifier with targets smoothed by 0.1. No gradient
    flows into :math:`p` and the ranks. The sources do not say which features are used.

    References:
        Yang et al., `From Knowledge Distillation to Self-Knowledge Distillation
        <https://arxiv.org/abs/2303.13005>`_, ICCV 2023
    """

    teacher_free = True
    on_logits, any_batch, has_layers = True, False, True

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        width = jax.eval_shape(_middle, setting.student).shape[-1]
        classes = setting.student.logits.shape[-1]
        self.classifier = nnx.Linear(width, classes, rngs=rngs)

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        del batch
        return self.classifier(_middle(student))

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        goals = batch.labels
        classes = logits.shape[-1]
        if goals.ndim == 1:
            goals = jax.nn.one_hot(goals, classes)
        found = target_term(logits, goals, batch.weights)
        found += NON_TARGET * non_target_term(logits, compared, goals, batch.weights)
        smooth = (1 - SMOOTHING) * goals + SMOOTHING / classes
        weak = losses.cross_entropy(compared, smooth, sample_weights=batch.weights)
        return found + WEAK * weak


def target_term(logits: jax.Array, goals: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes the loss on the two classes of the largest targets.

    Args:
        logits: ``[b, c]``.
        goals: Distributions, ``[b, c]``.
        weights: Sample weights, ``[b]``.
    """
    values, classes = jax.lax.top_k(goals, 2)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), classes, -1)
    squares = jnp.exp(2 * log_probs)
    shares = weights / jnp.maximum(jnp.sum(weights), 1)
    wanted = jnp.where(values > 0, squares + values - (shares @ squares)[None], 0)
    wanted = jax.lax.stop_gradient(wanted)
    return -shares @ jnp.sum(wanted * log_probs, -1)


def non_target_term(
    logits: jax.Array, weak: jax.Array, goals: jax.Array, weights: jax.Array
) -> jax.Array:
    """Computes the loss on all classes but those two.

    Args:
        logits: ``[b, c]``.
        weak: Logits of the second classifier, ``[b, c]``.
        goals: Distributions, ``[b, c]``.
        weights: Sample weights, ``[b]``.
    """
    values, classes = jax.lax.top_k(goals, 2)
    is_target = jnp.any(
        (
            jnp.arange(goals.shape[-1], dtype=classes.dtype)[None, :, None]
            == classes[:, None]
        )
        & (values > 0)[:, None],
        -1,
    )
    others = jnp.where(is_target, -jnp.inf, logits)
    order = jnp.where(is_target, -1, jax.nn.softmax(logits) + jax.nn.softmax(weak))
    ranks = jnp.argsort(jnp.argsort(-order, -1), -1) + 1
    zipf = jnp.where(is_target, 0, 1 / ranks)
    zipf = jax.lax.stop_gradient(zipf / jnp.sum(zipf, -1, keepdims=True))
    return losses.cross_entropy(others, zipf, sample_weights=weights)


def _middle(outputs: Outputs) -> jax.Array:
    return jnp.mean(outputs.features[len(outputs.features) // 2], (1, 2))
