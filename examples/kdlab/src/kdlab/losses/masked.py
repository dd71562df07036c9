"""MaskedKD: the teacher sees only the patches that the student attends to."""

from typing import Any

import jax
import jax.numpy as jnp

from kdlab.losses.base import Batch, KdLoss
from kdlab.models import Outputs
from kdopt import losses

SHARE = 0.5  # 98 of 196 patches


class MaskedKd(KdLoss):
    """KL divergence from a transformer that sees half of the patches.

    These are the patches to which the student's class token attends most in the last
    block, on average over the heads. They enter the teacher with their positions.

    References:
        Son et al., `MaskedKD: Efficient Distillation of Vision Transformers with Masked
        Images <https://arxiv.org/abs/2302.10494>`_, ECCV 2024
    """

    weights = (0.5, 0.5)
    on_logits, asks_teacher = True, True

    def compare(self, student: Outputs, batch: Batch) -> jax.Array:
        chosen = attended(student, SHARE)
        asked = batch.teacher.outputs(batch.images, patches=chosen)
        return jax.lax.stop_gradient(asked.logits)

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        return losses.kd(
            logits, compared, temperature=1.0, sample_weights=batch.weights
        )


def attended(outputs: Outputs, share: float) -> jax.Array:
    """Returns the indices of the patches with the most attention, ``[b, k]``.

    Args:
        outputs: Outputs of a transformer.
        share: Share of the patches to choose.

    Raises:
        ValueError: If the network has no attention.
    """
    if outputs.attention is None:
        raise ValueError(
            "--loss masked_kd needs a --student with a class token that attends to "
            "patches, such as vit_tiny32; and a transformer as --teacher."
        )
    attention = jnp.mean(outputs.attention, axis=1)
    count = max(1, round(share * attention.shape[-1]))
    return jax.lax.top_k(jax.lax.stop_gradient(attention), count)[1]
