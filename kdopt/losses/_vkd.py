"""VkD: a constrained projection of the student against the standardised teacher."""

import jax.numpy as jnp
import optax

from kdopt._typing import Scalar
from kdopt.losses._inputs import vector_rows
from kdopt.losses._reduce import batch_mean
from kdopt.losses._safe import centred
from kdopt.losses._shapes import Rows


def vkd(
    student_features: Rows,
    teacher_features: Rows,
    *,
    eps: float = 1e-5,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the smooth L1 distance to the teacher's layer-normalised features.

    .. math::
        L = \frac{1}{BD} \sum_b \sum_d h\Big( (P z^s_b)_d -
            \frac{z^t_{bd} - \bar z^t_b}{\sqrt{\mathrm{var}(z^t_b) + \epsilon}} \Big),
        \qquad
        h(x) = \begin{cases} x^2 / 2 & |x| \le 1 \\ |x| - 1/2 & |x| > 1 \end{cases}

    Args:
        student_features: :math:`P z^s`, ``[b, d]``, the student's features under a
            trained projection with orthonormal rows.
        teacher_features: :math:`z^t`, ``[b, d]``; no gradient flows into them.
        eps: :math:`\epsilon`, of the layer normalisation.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[7.0, 3.0]])
        >>> print(f"{losses.vkd(student, teacher):.4f}")
        0.5000

    References:
        Miles et al., `VkD: Improving Knowledge Distillation using Orthogonal
        Projections <https://arxiv.org/abs/2403.06213>`_, CVPR 2024
    """
    student, teacher, weights = vector_rows(
        student_features, teacher_features, sample_weights, same_width=True
    )
    gaps = centred(teacher, jnp.ones_like(teacher))
    variance = jnp.mean(jnp.square(gaps), axis=-1, keepdims=True)
    target = gaps / jnp.sqrt(variance + eps)
    per_sample = jnp.mean(optax.losses.huber_loss(student, target), axis=-1)
    return batch_mean(per_sample, weights)
