"""Task-preserving distillation: a direction that never costs the task a margin."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._labels import target_mask
from kdopt.losses._divergence import split_target
from kdopt.losses._logits import cross_entropy
from kdopt.losses._reduce import batch_mean


def tpkd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    labels: Int[Array, " b"],
    *,
    distill_weight: float = 0.5,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Cross-entropy whose gradient also carries what the teacher may add.

    .. math::
        \nabla_{z_b} L = \tfrac1B \big(p - e_y + \alpha \, d\big), \qquad
        d_y = -\ell, \quad d_j = r_j - \min(q_j, r_j + \ell), \qquad
        \ell = \sum_{j \ne y} [q_j - r_j - \ell]_+

    with :math:`p` the student's probabilities, and :math:`r, q` the student's and the
    teacher's probabilities of the wrong classes among themselves. The teacher's wishes
    are cut so that a step along :math:`-d` shrinks no margin :math:`z_y - z_j`. The
    direction is no gradient of a simple function: it is put in through
    :math:`\langle \mathrm{sg}(v), z \rangle`.

    Args:
        student_logits: :math:`z`, ``[b, c]``, at least two classes.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[b]``.
        distill_weight: :math:`\alpha`; the paper uses one half.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean cross-entropy in nats, at least float32, with the gradient above. It
        replaces the task loss and the distillation loss together.

    Raises:
        ValueError: If the labels are distributions; says what to pass instead.

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
        The value is that of the task, where the surrogate alone would have none that
        means anything; a balancer that looks at values then sees the cross-entropy.
    """
    student = jax.lax.stop_gradient(at_least_float32(student_logits))
    teacher = jax.lax.stop_gradient(at_least_float32(teacher_logits))
    is_target = target_mask(labels, student.shape[-1])
    r = jnp.exp(split_target(student, is_target)[1])
    q = jnp.exp(split_target(teacher, is_target)[1])
    # The root of a convex piecewise-linear equation is the greatest of its pieces'.
    gains = -jnp.sort(-jnp.maximum(q - r, 0), axis=-1)
    sizes = jnp.arange(2, gains.shape[-1] + 2).astype(gains.dtype)
    level = jnp.max(jnp.cumsum(gains, axis=-1) / sizes[None], axis=-1, keepdims=True)
    direction = jnp.where(is_target, -level, r - jnp.minimum(q, r + level))
    # Linear in the logits, of value 0: it only adds its slope to the gradient.
    logits = at_least_float32(student_logits)
    slope = jnp.sum(direction * (logits - student), axis=-1)
    task = cross_entropy(student_logits, labels, sample_weights=sample_weights)
    return task + distill_weight * batch_mean(slope, sample_weights)
