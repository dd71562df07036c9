"""Probabilistic knowledge transfer: which examples are neighbours."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._reduce import clear_masked, divide_or_zero, row_weights
from kdopt.losses._safe import unit


def pkt(
    student_features: Float[Array, "b _"],
    teacher_features: Float[Array, "b _"],
    *,
    eps: float = 1e-7,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Divergence between the conditional probabilities of being neighbours.

    .. math::
        L = \frac{1}{B^2} \sum_{ij} q_{j|i}
            \log \frac{q_{j|i} + \epsilon}{p_{j|i} + \epsilon}, \qquad
        p_{j|i} = \frac{1 + \cos(x_i, x_j)}{\sum_k \big(1 + \cos(x_i, x_k)\big)}

    with :math:`x` the student's features, and :math:`q` the same of the teacher's.

    Args:
        student_features: ``[b, d]``.
        teacher_features: ``[b, d']``, of any width; no gradient flows into them.
        eps: :math:`\epsilon`, keeps the logarithm finite.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32. A zero vector has cosine 0 with all, itself too,
        and gets no gradient.

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
        a08d46f) averages, with weight 30000, and so does this.
    """
    student = clear_masked(at_least_float32(student_features), sample_weights)
    teacher = clear_masked(at_least_float32(teacher_features), sample_weights)
    counts = row_weights(student, sample_weights)
    p = _neighbours(student, counts)
    q = _neighbours(jax.lax.stop_gradient(teacher), counts)
    divergence = q * (jnp.log(q + eps) - jnp.log(p + eps))
    total = counts @ divergence @ counts
    return divide_or_zero(total, jnp.square(jnp.sum(counts)))


def _neighbours(x, counts):
    directions = unit(x)
    closeness = 1 + jnp.matmul(directions, directions.T, precision="highest")
    # Rounding may take the cosine of opposite vectors below -1.
    closeness = jnp.maximum(closeness, 0)
    return divide_or_zero(closeness, (closeness @ counts)[:, None])
