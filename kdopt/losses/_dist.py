"""DIST: match the relations between the predictions, not the predictions."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._divergence import possible, soften
from kdopt.losses._inputs import folded_rows
from kdopt.losses._reduce import batch_mean, divide_or_zero, row_weights
from kdopt.losses._safe import centred, norm, unit
from kdopt.losses._shapes import Rows, check_temperature


def dist(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: ArrayLike = 1.0,
    eps: float = 1e-8,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes a loss of Pearson correlations, for distillation from strong teachers.

    .. math::
        L = \tau^2 \Big[
            \frac{\beta}{B} \sum_b \big(1 - \rho(p_{b\cdot}, q_{b\cdot})\big)
            + \frac{\gamma}{C} \sum_c \big(1 - \rho(p_{\cdot c}, q_{\cdot c})\big)
            \Big]

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau` and :math:`\rho` the Pearson correlation: over the classes of an
    example (inter-class), and over the examples for a class (intra-class).

    Args:
        student_logits: ``[..., c]``; every position is an example.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        inter_weight: :math:`\beta`.
        intra_weight: :math:`\gamma`.
        temperature: :math:`\tau > 0`; 1 on ImageNet, 4 on CIFAR-100.
        eps: Added to the product of norms in :math:`\rho`.
        sample_weights: How often each example counts, ``[...]``; 0 masks padding.

    Returns:
        The loss, at least float32. The correlation with a constant (one example in the
        batch, equal logits) counts as 0 and has no gradient.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

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
    student, teacher, weights = folded_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    if tau.ndim:
        raise ValueError(
            "temperature must be one number here: classes are compared across examples."
        )
    pair = soften(student, teacher, tau, tau)
    p, q = jax.nn.softmax(pair.student), jax.nn.softmax(pair.teacher)
    is_class = possible(student, teacher).astype(p.dtype)
    counts = row_weights(p, weights)[:, None] * is_class
    inter = batch_mean(_decorrelation(p, q, is_class, -1, eps), weights)
    is_used = (jnp.sum(counts, axis=0) > 0).astype(p.dtype)
    intra = is_used * _decorrelation(p, q, counts, 0, eps)
    intra = divide_or_zero(jnp.sum(intra), jnp.sum(is_used))
    return jnp.square(tau) * (inter_weight * inter + intra_weight * intra)


def _decorrelation(a, b, weights, axis, eps):
    r"""Computes one minus the correlation, without cancellation near 1.

    With deviations :math:`a, b`, :math:`1 - \frac{\langle a, b \rangle}
    {\lVert a \rVert \lVert b \rVert + \epsilon}` and half the squared
    distance between their directions.
    """
    a = centred(a, weights, axis=axis) * jnp.sqrt(weights)
    b = centred(b, weights, axis=axis) * jnp.sqrt(weights)
    gap = unit(a, axis=axis) - unit(b, axis=axis)
    half = jnp.sum(jnp.square(gap), axis=axis) / 2
    norms = jnp.squeeze(norm(a, axis=axis) * norm(b, axis=axis), axis)
    return (norms * half + eps) / (norms + eps)
