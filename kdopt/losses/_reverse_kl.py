"""Reverse KL: the student's divergence from the teacher, which seeks its modes."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._divergence import kl_divergence, soften
from kdopt.losses._inputs import logit_rows, of_rows
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows, check_temperature


def reverse_kl(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the reverse KL divergence: :func:`kd` the other way round.

    .. math:: L = \frac{\tau^2}{B} \sum_b \mathrm{KL}(p_b \,\|\, q_b)

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`. It penalises mass where the teacher has none, and so prefers one mode
    of the teacher to an average of all. Its gradient with respect to
    :math:`z^s_b / \tau` is :math:`\frac{\tau^2}{B} \, p \odot (\ell - \langle p, \ell
    \rangle)` with :math:`\ell = \log p - \log q`.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``.
        teacher_logits: :math:`z^t`, ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32; infinite where the teacher excludes a
        class that the student does not.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
        >>> print(f"{losses.reverse_kl(student, teacher):.4f}")
        0.8287

    References:
        Gu et al., `MiniLLM: Knowledge Distillation of Large Language Models
        <https://arxiv.org/abs/2306.08543>`_, ICLR 2024
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    per_token = kl_divergence(soften(teacher, student, tau, tau))
    return batch_mean(of_rows(jnp.square(tau)) * per_token, weights, denominator)
