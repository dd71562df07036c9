"""Relational distillation: distances and angles between the examples of a batch."""

import jax
import jax.numpy as jnp
import optax

from kdopt._typing import Scalar
from kdopt.losses._inputs import vector_rows
from kdopt.losses._reduce import divide_or_zero, pair_sum, row_weights
from kdopt.losses._safe import norm, unit
from kdopt.losses._shapes import Rows
from kdopt.losses._sharding import einsum, gathered


def rkd(
    student_features: Rows,
    teacher_features: Rows,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the weighted sum of the distance-wise and angle-wise relational losses.

    .. math:: L = \lambda_D L_D + \lambda_A L_A

    with :math:`L_D` of :func:`rkd_distance` and :math:`L_A` of :func:`rkd_angle`.

    Args:
        student_features: ``[b, d]``.
        teacher_features: ``[b, d']``, of any width; no gradient flows into them.
        distance_weight: :math:`\lambda_D`.
        angle_weight: :math:`\lambda_A`.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding.

    Returns:
        The loss, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> teacher = jnp.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> print(f"{losses.rkd(student, teacher):.4f}")
        7.3889
        >>> print(f"{losses.rkd(student, 2 * student):.4f}")
        0.0000

    References:
        Park et al., `Relational Knowledge Distillation
        <https://arxiv.org/abs/1904.05068>`_, CVPR 2019
    """
    return distance_weight * rkd_distance(
        student_features, teacher_features, sample_weights=sample_weights
    ) + angle_weight * rkd_angle(
        student_features, teacher_features, sample_weights=sample_weights
    )


def rkd_distance(
    student_features: Rows,
    teacher_features: Rows,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the smooth L1 distance between the tables of pairwise distances.

    .. math::
        L_D = \frac{1}{B^2} \sum_{ij} h\Big(
            \frac{\lVert x_i - x_j \rVert}{\mu_s} -
            \frac{\lVert y_i - y_j \rVert}{\mu_t} \Big)

    with :math:`x, y` the student's and the teacher's features, :math:`\mu` the mean
    positive distance in the batch and :math:`h` the Huber function of width 1.

    Args:
        student_features: ``[b, d]``.
        teacher_features: ``[b, d']``, of any width; no gradient flows into them.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding.

    Returns:
        The loss, at least float32. Equal examples have distance 0, and get no gradient
        from their pair.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[0.0], [1.0], [2.0]])
        >>> teacher = jnp.array([[0.0], [1.0], [4.0]])
        >>> print(f"{losses.rkd_distance(student, teacher):.4f}")
        0.0312

    References:
        Park et al., Relational Knowledge Distillation, CVPR 2019

    Notes:
        The reference code (megvii-research/mdistiller a08d46f) gives equal examples
        the distance 1e-6, which also counts in the mean; here it is 0 and does not.
    """
    student, teacher, counts = _inputs(
        student_features, teacher_features, sample_weights
    )
    loss = optax.losses.huber_loss(
        _distances(student, counts), _distances(teacher, counts)
    )
    return divide_or_zero(pair_sum(loss, counts), jnp.square(jnp.sum(counts)))


def rkd_angle(
    student_features: Rows,
    teacher_features: Rows,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the smooth L1 distance between the angle cosines of all triples.

    .. math::
        L_A = \frac{1}{B^3} \sum_{ijk} h\big(
            \cos \angle(x_i; x_j, x_k) - \cos \angle(y_i; y_j, y_k) \big)

    with :math:`x_i` at the vertex and :math:`h` the Huber function of width 1. Time and
    memory grow with the cube of the batch size.

    Args:
        student_features: ``[b, d]``.
        teacher_features: ``[b, d']``, of any width; no gradient flows into them.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding.

    Returns:
        The loss, at least float32. A side of length 0 has cosine 0, without gradient.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> teacher = jnp.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> print(f"{losses.rkd_angle(student, teacher):.4f}")
        0.1200

    References:
        Park et al., Relational Knowledge Distillation, CVPR 2019
    """
    student, teacher, counts = _inputs(
        student_features, teacher_features, sample_weights
    )
    loss = optax.losses.huber_loss(_cosines(student), _cosines(teacher))
    everywhere = gathered(counts)
    of_pairs = jnp.sum(loss * everywhere[None, None], axis=2)
    return divide_or_zero(pair_sum(of_pairs, counts), jnp.sum(counts) ** 3)


def _inputs(student_features, teacher_features, sample_weights):
    student, teacher, weights = vector_rows(
        student_features, teacher_features, sample_weights
    )
    return student, teacher, row_weights(student, weights)


def _differences(x):
    """Computes all pairwise differences up to one scale, ``[b, b, d]``.

    The difference of close numbers is exact: only equal examples are 0 apart.
    """
    # The scale cancels in what follows, and keeps the square of the mean in range.
    greatest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    return divide_or_zero(gathered(x)[None] - x[:, None], greatest)


def _distances(x, counts):
    """Returns the distances over their mean, ``[b, b]``."""
    distances = norm(_differences(x))[..., 0]
    positive = (distances > 0).astype(x.dtype)
    mean = divide_or_zero(pair_sum(distances, counts), pair_sum(positive, counts))
    return divide_or_zero(distances, mean)


def _cosines(x):
    """Computes the cosine of the angle at the first example, ``[b, b, b]``."""
    sides = unit(_differences(x))
    return einsum("ijd,ikd->ijk", sides, sides)
