"""ND: direction and size of the embedding, against class means of the teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._labels import are_soft, label_average
from kdopt.losses._reduce import batch_mean, clear_masked, divide_or_zero, row_weights
from kdopt.losses._safe import norm, unit


def nd(
    student_features: Float[Array, "b d"],
    teacher_features: Float[Array, "b d"],
    labels: Int[Array, " b"] | Float[Array, "b c"],
    class_means: Float[Array, "c d"],
    *,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Norm and direction of the student's embedding (the ND loss of ReviewKD++).

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
            average :math:`e`.
        class_means: :math:`m`, ``[c, d]``, as of :func:`class_means` over the
            training set; need not have length 1.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean loss, in [0, 2], at least float32.

    Raises:
        ValueError: If the labels are neither.

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
    student = at_least_float32(student_features)
    teacher = jax.lax.stop_gradient(at_least_float32(teacher_features))
    directions = jax.lax.stop_gradient(unit(at_least_float32(class_means)))
    # One scale a row cancels, and keeps the square of the length in range.
    greatest = jnp.maximum(jnp.abs(student), jnp.abs(teacher)).max(-1, keepdims=True)
    scale = jax.lax.stop_gradient(jnp.where(greatest > 0, greatest, 1))
    student, teacher = student / scale, teacher / scale
    lengths = jnp.maximum(norm(student), norm(teacher))[:, 0]
    along = jnp.sum(student * label_average(labels, directions), axis=-1)
    return batch_mean(1 - divide_or_zero(along, lengths), sample_weights)


def class_means(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"] | Float[Array, "n c"],
    *,
    num_classes: int,
    sample_weights: Float[Array, " n"] | None = None,
) -> Float[Array, "c d"]:
    r"""Mean embedding of every class, as :func:`nd` takes it.

    .. math:: m_c = \frac{1}{|\{n : y_n = c\}|} \sum_{n : y_n = c} f_n

    Args:
        features: The teacher's penultimate vectors of the training set, ``[n, d]``.
        labels: Class indices, ``[n]``, or distributions ``[n, c]``: an example then
            counts in part.
        num_classes: :math:`C`.
        sample_weights: How often each example counts, ``[n]``; 0 masks padding out.

    Returns:
        The means, ``[num_classes, d]``, at least float32; 0 for an empty class.

    Raises:
        ValueError: If the labels are neither.

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
        The reference code rounds the means to four decimals; here they are kept whole.
    """
    features = clear_masked(at_least_float32(features), sample_weights)
    counts = row_weights(features, sample_weights)[:, None]
    if are_soft(labels, num_classes):
        shares = labels.astype(features.dtype).T
        sums = jnp.matmul(shares, counts * features, precision="highest")
        return divide_or_zero(sums, shares @ counts)
    sums = jax.ops.segment_sum(counts * features, labels, num_classes)
    sizes = jax.ops.segment_sum(counts, labels, num_classes)
    return divide_or_zero(sums, sizes)
