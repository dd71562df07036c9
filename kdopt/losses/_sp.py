"""Similarity preserving: the Gram matrix of the batch."""

import string

import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._inputs import vector_rows
from kdopt.losses._reduce import divide_or_zero, row_weights
from kdopt.losses._safe import unit
from kdopt.losses._shapes import Rows
from kdopt.losses._sharding import einsum, gathered


def sp(
    student_features: Rows,
    teacher_features: Rows,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the squared distance between row-normalised Gram matrices of the batch.

    .. math::
        L = \frac{1}{B^2} \lVert \tilde G^s - \tilde G^t \rVert_F^2, \qquad
        \tilde G_{i \cdot} = \frac{G_{i \cdot}}{\lVert G_{i \cdot} \rVert}, \quad
        G_{ij} = \langle F_i, F_j \rangle

    Args:
        student_features: :math:`F^s`, maps or vectors, ``[b, ...]``, flattened.
        teacher_features: :math:`F^t`, of any other size; no gradient flows into them.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding.

    Returns:
        The loss, at least float32. A zero row stays zero and gets no gradient.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

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
    student, teacher, weights = vector_rows(
        student_features, teacher_features, sample_weights, axes=None
    )
    counts = row_weights(student, weights)
    gap = _similarities(student, counts) - _similarities(teacher, counts)
    total = jnp.sum(counts * jnp.sum(jnp.square(gap), axis=1))
    return divide_or_zero(total, jnp.square(jnp.sum(counts)))


def _similarities(features, counts):
    # One scale for the batch: it cancels, and keeps the products in range.
    x = unit(features, axis=tuple(range(features.ndim)))
    rest = string.ascii_lowercase[: x.ndim - 1]
    gram = einsum(f"Y{rest},Z{rest}->YZ", x, x)
    return unit(gram * jnp.sqrt(gathered(counts))[None])
