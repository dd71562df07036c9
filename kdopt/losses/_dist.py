"""DIST: match the relations of the predictions, not the predictions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean, clear_masked, row_weights
from kdopt.losses._safe import centred, norm


def dist(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: float | jax.Array = 1.0,
    eps: float = 1e-8,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Distillation from a stronger teacher, by Pearson correlations.

    .. math::
        L = \tau^2 \Big[
            \frac{\beta}{B} \sum_b \big(1 - \rho(p_{b\cdot}, q_{b\cdot})\big)
            + \frac{\gamma}{C} \sum_c \big(1 - \rho(p_{\cdot c}, q_{\cdot c})\big)
            \Big]

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau` and :math:`\rho` the Pearson correlation: over the classes of an
    example (inter-class), and over the examples for a class (intra-class).

    Args:
        student_logits: ``[b, c]``.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        inter_weight: :math:`\beta`.
        intra_weight: :math:`\gamma`.
        temperature: :math:`\tau > 0`; 1 on ImageNet, 4 on CIFAR-100.
        eps: Added to the product of norms in :math:`\rho`.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32. The correlation with a constant (one example in
        the batch, equal logits) counts as 0 and gives no gradient.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> teacher = jnp.array([[0.0, 2.0, 1.0], [0.0, 3.0, 0.0]])
        >>> print(f"{losses.dist(student, teacher):.4f}")
        0.9335

    References:
        Huang et al., `Knowledge Distillation from A Stronger Teacher
        <https://arxiv.org/abs/2205.10536>`_, NeurIPS 2022
    """
    p = jax.nn.softmax(at_least_float32(student_logits) / temperature)
    q = jax.nn.softmax(at_least_float32(teacher_logits) / temperature)
    p = clear_masked(p, sample_weights)
    q = clear_masked(jax.lax.stop_gradient(q), sample_weights)
    counts = row_weights(p, sample_weights)[:, None]
    inter = batch_mean(
        1 - _pearson(p, q, jnp.ones_like(counts), -1, eps), sample_weights
    )
    intra = jnp.mean(1 - _pearson(p, q, counts, 0, eps))
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _pearson(a, b, weights, axis, eps):
    a = centred(a, weights, axis=axis) * jnp.sqrt(weights)
    b = centred(b, weights, axis=axis) * jnp.sqrt(weights)
    norms = norm(a, axis=axis) * norm(b, axis=axis)
    return jnp.sum(a * b, axis=axis) / (jnp.squeeze(norms, axis) + eps)
