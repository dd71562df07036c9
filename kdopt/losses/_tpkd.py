"""Task-preserving distillation: a direction that never shrinks a margin of the task."""

import jax
import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._inputs import labelled_rows, logit_rows
from kdopt.losses._labels import target_mask
from kdopt.losses._logits import cross_entropy
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows
from kdopt.losses._sharding import gathered


def tpkd(
    student_logits: Rows,
    teacher_logits: Rows,
    labels: Rows,
    *,
    distill_weight: float = 0.5,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes a cross-entropy whose gradient includes what the teacher may add.

    .. math::
        \nabla_{z_b} L = \tfrac1B \big(p - e_y + \alpha \, d\big), \qquad
        d_y = -\ell, \quad d_j = r_j - \min(q_j, r_j + \ell), \qquad
        \ell = \sum_{j \ne y} [q_j - r_j - \ell]_+

    with :math:`p` the student's probabilities, and :math:`r, q` the student's and the
    teacher's probabilities renormalised over the wrong classes. The teacher's pull is
    clipped so that a step along :math:`-d` shrinks no margin :math:`z_y - z_j`. The
    direction is not the gradient of a simple function: it enters through
    :math:`\langle \mathrm{sg}(v), z \rangle`.

    Args:
        student_logits: :math:`z`, ``[..., c]``, at least two classes.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[...]``. An index that is not a class leaves
            its example out.
        distill_weight: :math:`\alpha`; the paper uses one half.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean cross-entropy in nats, at least float32, with the gradient above. It
        replaces the task loss and the distillation loss together.

    Raises:
        ValueError: If a shape is wrong, or the labels are distributions; the message
            says what to pass instead.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[0.0, 0.0, 0.0]])
        >>> teacher = jnp.array([[0.0, 9.0, 0.0]])
        >>> print(jax.grad(losses.tpkd)(student, teacher, jnp.array([0])).round(4))
        [[-0.7916  0.2084  0.5833]]

    References:
        Yuan and Tao, Learning Beyond Full Imitation: Task-Preserving Knowledge
        Distillation, 2026

    Notes:
        The value is that of the task, since the surrogate alone has no meaningful one;
        a balancer that uses values then sees the cross-entropy.
    """
    logits, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    num_classes = logits.shape[-1]
    labels, weights, logits, teacher = labelled_rows(
        labels, weights, num_classes, logits, teacher
    )
    is_target = target_mask(labels, num_classes)
    student = jax.lax.stop_gradient(logits)
    r, q = (jax.nn.softmax(x, where=~is_target) for x in (student, teacher))
    # The root of a convex piecewise-linear equation is the largest root of its pieces.
    gains = -jnp.sort(-gathered(jnp.maximum(q - r, 0), axis=-1), axis=-1)
    sizes = jnp.cumsum(jnp.ones_like(gains), axis=-1) + 1
    level = jnp.max(jnp.cumsum(gains, axis=-1) / sizes, axis=-1, keepdims=True)
    direction = jnp.where(is_target, -level, r - jnp.minimum(q, r + level))
    # Linear in the logits, with value 0: it only adds its slope to the gradient.
    moved = jnp.where(jnp.isneginf(student), 0, logits - student)
    slope = jnp.sum(direction * moved, axis=-1)
    rows = {"sample_weights": weights, "denominator": denominator}
    task = cross_entropy(logits, labels, **rows)
    return task + distill_weight * batch_mean(slope, weights, denominator)
