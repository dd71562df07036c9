"""Similarity preserving: the Gram matrix of the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._reduce import clear_masked, divide_or_zero, row_weights
from kdopt.losses._safe import unit


def sp(
    student_features: Float[Array, "b ..."],
    teacher_features: Float[Array, "b ..."],
    *,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Squared distance between the row-normalised Gram matrices of the batch.

    .. math::
        L = \frac{1}{B^2} \lVert \tilde G^s - \tilde G^t \rVert_F^2, \qquad
        \tilde G_{i \cdot} = \frac{G_{i \cdot}}{\lVert G_{i \cdot} \rVert}, \quad
        G_{ij} = \langle F_i, F_j \rangle

    Args:
        student_features: :math:`F^s`, maps or vectors, ``[b, ...]``, flattened.
        teacher_features: :math:`F^t`, of any other size; no gradient flows into them.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32. A zero row stays zero and gets no gradient.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> teacher = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(f"{losses.sp(student, teacher):.4f}")
        0.2929

    References:
        Tung and Mori, `Similarity-Preserving Knowledge Distillation
        <https://arxiv.org/abs/1907.09682>`_, ICCV 2019
    """
    student = clear_masked(at_least_float32(student_features), sample_weights)
    teacher = clear_masked(at_least_float32(teacher_features), sample_weights)
    counts = row_weights(student, sample_weights)
    gap = _similarities(student, counts) - _similarities(
        jax.lax.stop_gradient(teacher), counts
    )
    total = counts @ jnp.sum(jnp.square(gap), axis=1)
    return divide_or_zero(total, jnp.square(jnp.sum(counts)))


def _similarities(features, counts):
    # One scale for the batch: it cancels, and keeps the products in range.
    x = unit(features.reshape(1, -1)).reshape(len(features), -1)
    gram = jnp.matmul(x, x.T, precision="highest")
    return unit(gram * jnp.sqrt(counts)[None])
