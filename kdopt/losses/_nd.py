"""ND: direction and size of the embedding, against class means of the teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Scalar
from kdopt.losses._inputs import labelled_rows, vector_rows
from kdopt.losses._labels import are_soft, label_average
from kdopt.losses._reduce import batch_mean, divide_or_zero, row_weights
from kdopt.losses._safe import norm, unit
from kdopt.losses._shapes import (
    VECTORS,
    Rows,
    as_array,
    check_rank,
    check_same,
    check_weights,
)
from kdopt.losses._sharding import add_rows, einsum


def nd(
    student_features: Rows,
    teacher_features: Rows,
    labels: Rows,
    class_means: Rows,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the norm and direction loss of embeddings (ND, of ReviewKD++).

    .. math::
        L = \frac1B \sum_b \Big[ 1 -
            \frac{\langle f^s_b, e_{y_b} \rangle}
                 {\max(\lVert f^s_b \rVert, \lVert f^t_b \rVert)} \Big], \qquad
        e_c = \frac{m_c}{\lVert m_c \rVert}

    The embedding is turned towards the teacher's mean :math:`m_c` of its class, and
    lengthened up to the length of the teacher's.

    Args:
        student_features: Penultimate vectors :math:`f^s`, ``[b, d]``, mapped to the
            teacher's width by a trained layer where it differs.
        teacher_features: :math:`f^t`, ``[b, d]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[b]``, or distributions ``[b, c]``, which
            average :math:`e`. An index that is not a class leaves its example out.
        class_means: :math:`m`, ``[c, d]``, from :func:`class_means` over the training
            set; need not have length 1.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, in [0, 2], at least float32.

    Raises:
        ValueError: If the labels are neither, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])
        >>> means = jnp.array([[3.0, 4.0]])
        >>> print(f"{losses.nd(student, teacher, jnp.array([0]), means):.4f}")
        0.7000

    References:
        Wang et al., `Improving Knowledge Distillation via Regularizing Feature
        Norm and Direction <https://arxiv.org/abs/2305.17007>`_, ECCV 2024

    Notes:
        As in the reference code (WangYZ1608/Knowledge-Distillation-via-ND fc6f3f9)
        the gradient also flows through the student's norm in the denominator.
    """
    student, teacher, weights = vector_rows(
        student_features, teacher_features, sample_weights, same_width=True
    )
    means = as_array("class_means", class_means)
    check_rank("class_means", means, "c d")
    check_same(
        ("student_features", "class_means"),
        student,
        means,
        1,
        "equal widths",
        "compute the means of the teacher's features by kdopt.losses.class_means",
    )
    labels, weights, student, teacher = labelled_rows(
        labels, weights, len(means), student, teacher, soft=True
    )
    directions = jax.lax.stop_gradient(unit(means.astype(student.dtype)))
    # One scale per row cancels, and keeps the square of the length in range.
    greatest = jnp.maximum(jnp.abs(student), jnp.abs(teacher)).max(-1, keepdims=True)
    scale = jax.lax.stop_gradient(jnp.where(greatest > 0, greatest, 1))
    student, teacher = student / scale, teacher / scale
    lengths = jnp.maximum(norm(student), norm(teacher))[:, 0]
    along = jnp.sum(student * label_average(labels, directions), axis=-1)
    return batch_mean(1 - divide_or_zero(along, lengths), weights)


def class_means(
    features: Rows,
    labels: Rows,
    *,
    num_classes: int,
    sample_weights: Rows | None = None,
) -> Float[Array, "c d"]:
    r"""Computes the mean embedding of every class, for :func:`nd`.

    .. math:: m_c = \frac{1}{|\{n : y_n = c\}|} \sum_{n : y_n = c} f_n

    Args:
        features: The teacher's penultimate vectors of the training set, ``[n, d]``.
        labels: Class indices, ``[n]``, or distributions ``[n, c]``: an example then
            counts in part. An index that is not a class leaves its example out.
        num_classes: :math:`C`.
        sample_weights: How often each example counts, ``[n]``; 0 masks padding.

    Returns:
        The means, ``[num_classes, d]``, at least float32; 0 for an empty class.

    Raises:
        ValueError: If the labels are neither, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> features = jnp.array([[1.0, 0.0], [3.0, 2.0], [0.0, 5.0]])
        >>> print(losses.class_means(features, jnp.array([0, 0, 1]), num_classes=2))
        [[2. 1.]
         [0. 5.]]

    References:
        Wang et al., Improving Knowledge Distillation via Regularizing Feature
        Norm and Direction, ECCV 2024

    Notes:
        The reference code rounds the means to four decimals; here they are not rounded.
    """
    features = as_array("features", features)
    check_rank("features", features, VECTORS)
    features = features.astype(accumulator_dtype(features))
    weights = check_weights(sample_weights, features.shape[:1], features.dtype)
    labels, weights, features = labelled_rows(
        labels, weights, num_classes, features, soft=True
    )
    counts = row_weights(features, weights)[:, None]
    if are_soft(labels, num_classes):
        shares = counts * labels.astype(features.dtype)
        sums, sizes = einsum("nc,nd->cd", shares, features), jnp.sum(shares, axis=0)
        return divide_or_zero(sums, sizes[:, None])
    sums = add_rows(counts * features, labels, num_classes)
    return divide_or_zero(sums, add_rows(counts, labels, num_classes))
