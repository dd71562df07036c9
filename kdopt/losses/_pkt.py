"""Probabilistic knowledge transfer: which examples are neighbours."""

import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._divergence import exp_remainder
from kdopt.losses._inputs import vector_rows
from kdopt.losses._reduce import divide_or_zero, pair_sum, row_weights
from kdopt.losses._safe import unit
from kdopt.losses._shapes import Rows
from kdopt.losses._sharding import einsum, gathered


def pkt(
    student_features: Rows,
    teacher_features: Rows,
    *,
    eps: float = 1e-7,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the divergence between conditional probabilities of being neighbours.

    .. math::
        L = \frac{1}{B^2} \sum_{ij} q_{j|i}
            \log \frac{q_{j|i} + \epsilon}{p_{j|i} + \epsilon}, \qquad
        p_{j|i} = \frac{1 + \cos(x_i, x_j)}{\sum_k \big(1 + \cos(x_i, x_k)\big)}

    with :math:`x` the student's features, and :math:`q` the same for the teacher's.

    Args:
        student_features: ``[b, d]``.
        teacher_features: ``[b, d']``, of any width; no gradient flows into them.
        eps: :math:`\epsilon`, keeps the logarithm finite.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding.

    Returns:
        The loss, at least float32. A zero vector has cosine 0 with all vectors, even
        itself, and gets no gradient.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> teacher = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(f"{losses.pkt(student, teacher):.4f}")
        0.0294

    References:
        Passalis and Tefas, `Learning Deep Representations with Probabilistic Knowledge
        Transfer <https://arxiv.org/abs/1803.10837>`_, ECCV 2018

    Notes:
        The paper sums over the pairs; the reference code (megvii-research/mdistiller
        a08d46f) averages, with weight 30000, as here.
    """
    student, teacher, weights = vector_rows(
        student_features, teacher_features, sample_weights
    )
    counts = row_weights(student, weights)
    p, q = _neighbours(student, counts), _neighbours(teacher, counts)
    total = pair_sum(_divergence(p, q, eps), counts)
    return divide_or_zero(total, jnp.square(jnp.sum(counts)))


def _neighbours(x, counts):
    directions = unit(x)
    closeness = 1 + einsum("id,jd->ij", directions, directions)
    # Rounding may take the cosine of opposite vectors below -1.
    closeness = jnp.maximum(closeness, 0)
    totals = jnp.sum(closeness * gathered(counts)[None], axis=1, keepdims=True)
    return divide_or_zero(closeness, totals)


def _divergence(p, q, eps):
    """Computes terms q log((q + eps) / (p + eps)), plus p - q, which sums to 0.

    With the latter no term cancels when p and q are almost equal.
    """
    ratio = divide_or_zero(p - q, q + eps)
    near = jnp.abs(ratio) < 0.25
    x = jnp.log1p(jnp.where(near, ratio, 0))
    near_terms = (q + eps) * exp_remainder(x) + eps * x
    p, q = jnp.where(near, 1, p), jnp.where(near, 1, q)
    far_terms = q * (jnp.log(q + eps) - jnp.log(p + eps)) + (p - q)
    return jnp.where(near, near_terms, far_terms)
