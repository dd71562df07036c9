"""Total variation: how much probability mass must be moved."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._divergence import log_ratio, soften
from kdopt.losses._inputs import logit_rows, of_rows
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows, check_temperature


def total_variation(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the total variation distance between student and teacher.

    .. math:: L = \frac{\tau}{2B} \sum_b \sum_c \lvert p_{bc} - q_{bc} \rvert

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`. The distance is of first order in the logits, so the factor that keeps
    the size of its gradient is :math:`\tau`; for a divergence it is the square. The
    gradient with respect to :math:`z^s_b` is
    :math:`\frac{1}{2B} \, p \odot (s - \langle p, s \rangle)` with
    :math:`s = \mathrm{sign}(p - q)`.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss, at least float32, between 0 and :math:`\tau`.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
        >>> print(f"{losses.total_variation(student, teacher):.4f}")
        0.6119

    References:
        Wen et al., `f-Divergence Minimization for Sequence-Level Knowledge Distillation
        <https://arxiv.org/abs/2307.15190>`_, ACL 2023
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    pair = soften(student, teacher, tau, tau)
    p, q = jax.nn.softmax(pair.student), jax.nn.softmax(pair.teacher)
    ratio = log_ratio(pair)
    near = jnp.abs(ratio) < 0.5
    gap = jnp.where(near, q * jnp.expm1(jnp.where(near, ratio, 0)), p - q)
    per_token = jnp.sum(jnp.abs(gap), axis=-1) / 2
    return batch_mean(of_rows(tau) * per_token, weights, denominator)
